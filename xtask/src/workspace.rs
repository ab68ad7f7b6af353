//! Where things are in this workspace, and how cargo is called.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The folder of the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// The BPF object that the agent embeds.
pub fn bpf_object() -> PathBuf {
    root().join("target/bpf/sluice-ebpf")
}

/// Cargo's output folder for the host, as the user configured it.
pub fn target_dir() -> Result<&'static Path> {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    if let Some(dir) = DIR.get() {
        return Ok(dir);
    }
    let metadata = metadata(&["--no-deps"])?;
    let dir = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(DIR.get_or_init(|| PathBuf::from(dir)))
}

/// What `cargo metadata` says about the workspace.
pub fn metadata(args: &[&str]) -> Result<Value> {
    let mut command = cargo();
    command
        .args(["metadata", "--format-version", "1"])
        .args(args);
    let json = process::output(&mut command)?;
    serde_json::from_str(&json).context("cargo metadata wrote something that is not JSON")
}

/// The cargo that runs this program, in the workspace, without the variables it set for this program.
///
/// The user's own settings (`RUSTFLAGS`, `CARGO_TARGET_DIR`, `RUSTUP_TOOLCHAIN`) stay.
pub fn cargo() -> Command {
    without(&running_cargo(), is_set_for_a_package)
}

/// Like [`cargo`], but without anything of the user's that would change what is compiled or where it goes.
pub fn clean_cargo() -> Command {
    clean_cargo_of(&running_cargo())
}

/// Like [`clean_cargo`], with another toolchain's cargo.
pub fn clean_cargo_of(cargo: &Path) -> Command {
    without(cargo, |name| {
        is_set_for_a_package(name) || changes_the_build(name)
    })
}

/// Like [`clean_cargo`], for packages that are not of this workspace, with the compiler that belongs to the running cargo.
///
/// Were it left to rustup to choose one, a `rust-toolchain.toml` inside a dependency would make it install or update toolchains.
pub fn foreign_cargo() -> Command {
    let mut command = clean_cargo();
    let compiler = running_cargo().with_file_name("rustc");
    if compiler.is_file() {
        command.env("RUSTC", compiler);
    }
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    command
}

/// The triple of this machine.
pub fn host() -> Result<String> {
    let said = process::output(cargo().arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("cargo -vV names no host")
}

fn running_cargo() -> PathBuf {
    env::var_os("CARGO")
        .unwrap_or_else(|| "cargo".into())
        .into()
}

fn without(cargo: &Path, unwanted: impl Fn(&str) -> bool) -> Command {
    let mut command = Command::new(cargo);
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(&unwanted) {
            command.env_remove(name);
        }
    }
    command
}

/// Variables that `cargo run` sets for the program it runs.
fn is_set_for_a_package(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || [
            "CARGO_BIN_NAME",
            "CARGO_CRATE_NAME",
            "CARGO_PRIMARY_PACKAGE",
            "OUT_DIR",
        ]
        .contains(&name)
}

/// Variables that choose a compiler, its flags, its libraries, a profile or an output folder.
///
/// `cargo run` puts its own toolchain's libraries into `LD_LIBRARY_PATH`: another compiler must not load those.
fn changes_the_build(name: &str) -> bool {
    const KEPT: [&str; 2] = ["CARGO_HOME", "CARGO_BUILD_JOBS"];
    const KEPT_PREFIXES: [&str; 5] = [
        "CARGO_TERM_",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
    ];
    const OTHERS: [&str; 3] = ["RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH", "AYA_BPF_TARGET_ARCH"];
    if KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    name.starts_with("CARGO_")
        || (name.starts_with("RUST") && !name.starts_with("RUSTUP_") && name != "RUST_BACKTRACE")
        || OTHERS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_a_build_is_told_from_what_only_serves_it() {
        for name in [
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_BPF_LTO",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
        ] {
            assert!(changes_the_build(name), "{name}");
        }
        for name in [
            "PATH",
            "CARGO",
            "CARGO_HOME",
            "RUSTUP_HOME",
            "CARGO_TERM_COLOR",
            "CARGO_NET_OFFLINE",
            "HOME",
        ] {
            assert!(!changes_the_build(name), "{name}");
        }
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(root().join("Cargo.lock").is_file());
        assert!(target_dir().unwrap().is_absolute());
    }
}
