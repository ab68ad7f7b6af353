//! Debian packages.

use std::{ffi::OsString, process::Command, sync::OnceLock};

use anyhow::{Context, Result, bail};

use crate::{privilege::Privilege, process, toolchain::Version};

/// Whether this system installs packages with apt.
pub fn is_here() -> bool {
    process::find("apt-get").is_some() && process::find("apt-cache").is_some()
}

/// The version of a package that apt would install. The lists of packages are fetched when they do not know it.
pub fn candidate(privilege: &Privilege, package: &str) -> Result<Option<Version>> {
    if !is_here() {
        return Ok(None);
    }
    if let Some(version) = known_candidate(package)? {
        return Ok(Some(version));
    }
    update(privilege)?;
    known_candidate(package)
}

/// Installs packages; they need not be known yet.
pub fn install(privilege: &Privilege, packages: &[&str]) -> Result<()> {
    if !is_here() {
        bail!(
            "this system has no apt-get: install with its own package manager what these have: {}",
            packages.join(" ")
        );
    }
    for package in packages {
        if candidate(privilege, package)?.is_none() {
            bail!("apt knows no package {package}");
        }
    }
    eprintln!("installing Debian packages: {}", packages.join(" "));
    let mut command = apt_get(privilege)
        .with_context(|| format!("cannot run apt-get install {}", packages.join(" ")))?;
    process::run(
        command
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
}

/// Fetches the lists of packages, once per run.
fn update(privilege: &Privilege) -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_some() {
        return Ok(());
    }
    eprintln!("fetching the lists of Debian packages");
    process::run(
        apt_get(privilege)
            .context("cannot fetch the lists of packages")?
            .arg("update"),
    )?;
    DONE.get_or_init(|| ());
    Ok(())
}

fn apt_get(privilege: &Privilege) -> Result<Command> {
    let quiet = [("DEBIAN_FRONTEND", OsString::from("noninteractive"))];
    privilege.command(quiet, "apt-get")
}

fn known_candidate(package: &str) -> Result<Option<Version>> {
    let policy = process::output(
        Command::new("apt-cache")
            .args(["policy", package])
            .env("LC_ALL", "C"),
    )?;
    Ok(parse_candidate(&policy))
}

/// The candidate in the output of `apt-cache policy`.
fn parse_candidate(policy: &str) -> Option<Version> {
    let candidate = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    // The number before a colon is Debian's epoch, not a part of the version.
    let version = candidate
        .split_once(':')
        .map_or(candidate, |(_, version)| version);
    Version::parse(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_from_apts_policy() {
        let policy = "llvm-22-dev:\n  Installed: (none)\n  Candidate: 1:22.1.8-1~deb12u1\n  Version table:\n";
        assert_eq!(parse_candidate(policy).unwrap().parts, [22, 1, 8]);
        assert_eq!(
            parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"),
            None
        );
        assert_eq!(
            parse_candidate(""),
            None,
            "apt-cache says nothing about packages it does not know"
        );
    }
}
