//! The linker of the kernel programs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Compiler, Version};
use crate::process;

/// The `bpf-linker` that setup builds.
pub const LINKER_VERSION: &str = "0.13.0";

/// The LLVM versions that this `bpf-linker` can be built with.
pub const LINKER_LLVMS: [u32; 3] = [21, 22, 23];

/// The oldest `bpf-linker` whose output is known to load.
const OLDEST: Version = Version { parts: [0, 13, 0] };

/// A usable `bpf-linker`.
#[derive(Debug, Clone)]
pub struct Linker {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

impl Linker {
    /// The `bpf-linker` in `PATH`, or the one in cargo's folder.
    ///
    /// # Errors
    /// It is missing, does not start (its LLVM went away), is too old, or its LLVM is older than the compiler's, whose code it cannot read.
    pub fn find(compiler: &Compiler) -> Result<Self> {
        let path = process::find("bpf-linker")
            .or_else(in_cargo_home)
            .context("not installed")?;
        let said = process::output(
            Command::new(&path)
                .arg("--version")
                .env_remove("LD_LIBRARY_PATH"),
        )?;
        let version = Version::parse(&said)
            .with_context(|| format!("{} states no version", path.display()))?;
        if version < OLDEST {
            bail!(
                "{} is version {version}, {OLDEST} is the oldest that works",
                path.display()
            );
        }
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let needed = compiler.rustc.llvm_major;
        if let Some(llvm) = shared_llvm(&bytes).filter(|llvm| *llvm < needed) {
            bail!(
                "{} uses LLVM {llvm}, the compiler LLVM {needed}",
                path.display()
            );
        }
        Ok(Self { path, version })
    }
}

fn in_cargo_home() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))?;
    let path = home.join("bin/bpf-linker");
    path.is_file().then_some(path)
}

/// The major version of the shared LLVM that a program asks for by name; none if LLVM is linked into it.
fn shared_llvm(program: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"libLLVM.so.";
    let start = program
        .windows(NAME.len())
        .position(|bytes| bytes == NAME)?
        + NAME.len();
    let digits = program[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |number, digit| {
        Some(number.unwrap_or(0) * 10 + u32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_llvm_is_read_from_the_name_of_the_library() {
        assert_eq!(
            shared_llvm(b"\x7fELF..\0libLLVM.so.22.1\0libc.so.6\0"),
            Some(22)
        );
        assert_eq!(shared_llvm(b"\x7fELF..\0libc.so.6\0"), None);
        assert_eq!(shared_llvm(b"libLLVM.so."), None);
    }
}
