//! The linker of the kernel programs.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::Version;
use crate::process;

/// The `bpf-linker` that setup builds.
pub const LINKER_VERSION: &str = "0.13.0";

/// The oldest `bpf-linker` whose output is known to load.
const OLDEST: Version = Version { parts: [0, 13, 0] };

/// A `bpf-linker` that starts.
#[derive(Debug, Clone)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

impl Linker {
    /// The `bpf-linker` in `PATH`, or the one in cargo's folder; none if it is too old or does not start (its LLVM went away).
    pub fn find() -> Option<Self> {
        let path = process::find("bpf-linker").or_else(in_cargo_home)?;
        let said = process::output(
            Command::new(&path)
                .arg("--version")
                .env_remove("LD_LIBRARY_PATH"),
        )
        .ok()?;
        let version = Version::parse(&said)?;
        (version >= OLDEST).then_some(Self { path, version })
    }
}

fn in_cargo_home() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))?;
    let path = home.join("bin/bpf-linker");
    path.is_file().then_some(path)
}
