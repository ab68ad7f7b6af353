//! The compiler of Kubernetes' programs.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Version;
use crate::process;

/// The oldest Go that compiles the Kubernetes of the cluster.
pub const OLDEST_GO: Version = Version { parts: [1, 26, 0] };

/// The Go that is installed where there is an older one.
const INSTALLED: &str = "1.26.3";

/// A call of Go that never replaces itself by another version.
///
/// # Errors
/// If there is none that is new enough.
pub fn go() -> Result<Command> {
    let Some((path, _)) = find_go() else {
        bail!("there is no Go {OLDEST_GO} or newer: `cargo xtask setup` installs one");
    };
    Ok(local(&path))
}

/// A Go that is new enough, and its version.
pub fn find_go() -> Option<(PathBuf, Version)> {
    candidates()
        .into_iter()
        .filter_map(|path| Some((version(&path)?, path)))
        .find(|(version, _)| *version >= OLDEST_GO)
        .map(|(version, path)| (path, version))
}

/// Gets a Go that is new enough as the module it is published as, by means of any older Go.
pub fn install_go() -> Result<()> {
    let old = process::find("go").context("there is no go at all")?;
    let module = format!("golang.org/toolchain@v0.0.1-go{INSTALLED}.{}", platform());
    eprintln!("getting Go {INSTALLED}");
    let mut command = local(&old);
    command.args(["mod", "download", "-json", &module]);
    let said: Value = serde_json::from_str(&process::output(&mut command)?)
        .context("go mod download wrote something that is not JSON")?;
    let dir = said["Dir"]
        .as_str()
        .context("go mod download names no folder")?;
    // Modules carry no permissions.
    let tools = format!("{dir}/pkg/tool/{}", platform().replace('-', "_"));
    for folder in [format!("{dir}/bin"), tools] {
        for file in fs::read_dir(&folder).with_context(|| format!("there is no {folder}"))? {
            fs::set_permissions(file?.path(), fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

fn local(go: &Path) -> Command {
    let mut command = Command::new(go);
    command.env("GOTOOLCHAIN", "local").env_remove("GOROOT");
    command
}

fn candidates() -> Vec<PathBuf> {
    let modules = env::var_os("GOMODCACHE")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join("go/pkg/mod")));
    let published = modules.map(|dir| {
        dir.join(format!(
            "golang.org/toolchain@v0.0.1-go{INSTALLED}.{}/bin/go",
            platform()
        ))
    });
    process::find("go")
        .into_iter()
        .chain(["/usr/local/go/bin/go".into()])
        .chain(published)
        .collect()
}

fn version(go: &Path) -> Option<Version> {
    let said = process::output(local(go).args(["env", "GOVERSION"])).ok()?;
    Version::parse(said.trim().strip_prefix("go")?)
}

/// This system as Go names it.
fn platform() -> &'static str {
    match env::consts::ARCH {
        "aarch64" => "linux-arm64",
        _ => "linux-amd64",
    }
}
