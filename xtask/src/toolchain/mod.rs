//! Finding a compiler for the kernel programs.
//!
//! There are two routes to a `core` for `bpfel-unknown-none`: a compiler that ships one compiled (Debian's `rustc-web` with
//! `libstd-rust-web-dev-bpf`), and a nightly of rustup with `rust-src`, which compiles it (`-Z build-std`). Both need `bpf-linker`, linked
//! with an LLVM at least as new as the compiler's.

mod go;
mod linker;
mod rustc;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

pub use go::{OLDEST_GO, find_go, go, install_go};
pub use linker::{LINKER_LLVMS, LINKER_VERSION, Linker};
pub use rustc::{Rustc, Version};

use crate::process;

/// What the kernel programs are compiled for.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// A compiler that can compile for [`BPF_TARGET`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiler {
    /// How it gets `core`.
    pub route: Route,
    /// The compiler.
    pub rustc: Rustc,
}

/// How a compiler gets `core` for BPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// It ships a compiled one.
    Shipped,
    /// It compiles it from its own sources.
    BuildStd,
}

/// A usable compiler with its linker.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// Where `bpf-linker` is.
    pub linker: PathBuf,
}

impl Compiler {
    /// The first usable compiler of this machine; one that ships `core` is preferred, because it needs no sources and compiles faster.
    pub fn find() -> Option<Self> {
        candidates().into_iter().find_map(|path| Self::probe(&path))
    }

    /// What the compiler at `path` can do; none if it cannot compile for BPF.
    fn probe(path: &Path) -> Option<Self> {
        let rustc = Rustc::probe(path).ok()?;
        let route = (rustc.version >= oldest_compiler()).then(|| rustc.route())??;
        Some(Self { route, rustc })
    }

    /// The folder of the LLVM programs that fit a shipped compiler; it stands first in `PATH` of a build.
    pub fn llvm_bin(&self) -> Option<PathBuf> {
        let dir = PathBuf::from(format!("/usr/lib/llvm-{}/bin", self.rustc.llvm_major));
        (self.route == Route::Shipped && dir.is_dir()).then_some(dir)
    }

    /// The driver of the lints that belong to this compiler, if they are installed.
    pub fn clippy_driver(&self) -> Option<PathBuf> {
        let driver = self.rustc.path.with_file_name("clippy-driver");
        driver.is_file().then_some(driver)
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let how = match self.route {
            Route::Shipped => "ships core for BPF",
            Route::BuildStd => "nightly with rust-src",
        };
        let Rustc {
            path,
            version,
            llvm_major,
            ..
        } = &self.rustc;
        format!("{} {version} (LLVM {llvm_major}, {how})", path.display())
    }
}

impl Toolchain {
    /// The compiler and linker of this machine, or what is missing and how to get it.
    pub fn find() -> Result<Self> {
        let compiler = Compiler::find().ok_or_else(|| {
            anyhow::anyhow!(
                "no compiler for the kernel programs: run `cargo xtask setup`, which installs one"
            )
        })?;
        let linker = Linker::find(&compiler)?;
        Ok(Self {
            compiler,
            linker: linker.path,
        })
    }
}

/// The oldest compiler that this workspace compiles with.
pub fn oldest_compiler() -> Version {
    Version::parse(env!("CARGO_PKG_RUST_VERSION")).expect("the workspace states its rust-version")
}

/// Compilers to look at, best first: what `SLUICE_BPF_RUSTC` names and nothing else, or the system's and rustup's nightlies.
fn candidates() -> Vec<PathBuf> {
    if let Some(path) = env::var_os("SLUICE_BPF_RUSTC") {
        return vec![path.into()];
    }
    let mut paths: Vec<PathBuf> = vec!["/usr/bin/rustc".into(), "/usr/local/bin/rustc".into()];
    paths.extend(rustup_toolchains().map(|dir| dir.join("bin/rustc")));
    paths
}

/// Folders of the installed toolchains, nightlies only: others refuse `-Z build-std`.
fn rustup_toolchains() -> impl Iterator<Item = PathBuf> {
    let listed = process::find("rustup")
        .and_then(|rustup| {
            process::output(Command::new(rustup).args(["toolchain", "list", "-v"])).ok()
        })
        .unwrap_or_default();
    nightly_folders(&listed).into_iter()
}

/// Folders of the nightlies in the output of `rustup toolchain list -v`, plain `nightly` (the newest) first.
fn nightly_folders(listed: &str) -> Vec<PathBuf> {
    let mut folders: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with("nightly"))
        .filter_map(|line| line.split_whitespace().last())
        .filter(|word| word.starts_with('/'))
        .collect();
    folders.sort_by_key(|folder| folder.contains("nightly-2"));
    folders.into_iter().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nightlies_are_read_from_rustups_list() {
        let listed = "stable-x86_64-unknown-linux-gnu (active, default) /r/toolchains/stable-x86_64-unknown-linux-gnu\n\
                      nightly-2026-01-02-x86_64-unknown-linux-gnu /r/toolchains/nightly-2026-01-02-x86_64-unknown-linux-gnu\n\
                      nightly-x86_64-unknown-linux-gnu /r/toolchains/nightly-x86_64-unknown-linux-gnu\n";
        let expected = [
            "/r/toolchains/nightly-x86_64-unknown-linux-gnu",
            "/r/toolchains/nightly-2026-01-02-x86_64-unknown-linux-gnu",
        ];
        assert_eq!(nightly_folders(listed), expected.map(PathBuf::from));
        assert!(nightly_folders("no installed toolchains\n").is_empty());
    }
}
