//! What a compiler is and can do.

use std::{
    cmp::Ordering,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{BPF_TARGET, Route};
use crate::process;

/// A compiler that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rustc {
    /// The program.
    pub path: PathBuf,
    /// Its release.
    pub version: Version,
    /// Whether it accepts unstable features by itself.
    pub nightly: bool,
    /// The major version of its LLVM.
    pub llvm_major: u32,
    /// Where its libraries are.
    pub sysroot: PathBuf,
}

/// A version of three numbers; what follows them is not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Major, minor, patch.
    pub parts: [u32; 3],
}

impl Rustc {
    /// Asks the compiler at `path`.
    pub fn probe(path: &Path) -> Result<Self> {
        let text = process::output(Command::new(path).arg("-vV").env_remove("LD_LIBRARY_PATH"))?;
        let sysroot = process::output(
            Command::new(path)
                .args(["--print", "sysroot"])
                .env_remove("LD_LIBRARY_PATH"),
        )?;
        Self::parse(path, &text, sysroot.trim())
    }

    /// How this compiler gets `core` for BPF, if it can.
    pub fn route(&self) -> Option<Route> {
        let rustlib = self.sysroot.join("lib/rustlib");
        if has_core(&rustlib.join(BPF_TARGET).join("lib")) {
            Some(Route::Shipped)
        } else if self.nightly && rustlib.join("src/rust/library/core/Cargo.toml").is_file() {
            Some(Route::BuildStd)
        } else {
            None
        }
    }

    /// From the output of `rustc -vV` and `rustc --print sysroot`.
    fn parse(path: &Path, text: &str, sysroot: &str) -> Result<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .with_context(|| format!("{} -vV has no line '{name}:'", path.display()))
        };
        let release = field("release")?;
        let version =
            Version::parse(release).with_context(|| format!("'{release}' is not a version"))?;
        let llvm = field("LLVM version")?;
        let llvm = Version::parse(llvm).with_context(|| format!("'{llvm}' is not a version"))?;
        Ok(Self {
            path: path.to_owned(),
            version,
            nightly: release.contains("nightly") || release.contains("dev"),
            llvm_major: llvm.parts[0],
            sysroot: sysroot.into(),
        })
    }
}

impl Version {
    /// The first version in `text`: one to three numbers with dots, wherever they start.
    pub fn parse(text: &str) -> Option<Self> {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let mut parts = [0; 3];
        let numbers = text[start..]
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .next()?;
        for (part, number) in parts
            .iter_mut()
            .zip(numbers.split('.').filter(|n| !n.is_empty()))
        {
            *part = number.parse().ok()?;
        }
        Some(Self { parts })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts.cmp(&other.parts)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.parts;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Whether a library folder has a compiled `core`.
fn has_core(dir: &Path) -> bool {
    dir.read_dir().is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
                          host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn a_compiler_is_read_from_its_own_words() {
        let rustc = Rustc::parse(Path::new("/usr/bin/rustc"), DEBIAN, "/usr").unwrap();
        assert_eq!(
            (rustc.version.parts, rustc.llvm_major, rustc.nightly),
            ([1, 96, 0], 22, false)
        );
        let nightly = DEBIAN.replace("release: 1.96.0", "release: 1.97.0-nightly");
        assert!(
            Rustc::parse(Path::new("r"), &nightly, "/r")
                .unwrap()
                .nightly
        );
        let error = Rustc::parse(Path::new("r"), "release: 1.0.0\n", "/r").unwrap_err();
        assert!(error.to_string().contains("LLVM version"), "{error}");
    }

    #[test]
    fn versions_compare_by_number() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("5.10.0-28-amd64") < version("6.1"));
        assert!(version("6.18.44-fc-v657") > version("6.9.200"));
        assert_eq!(version("bpf-linker 0.13.0"), version("0.13"));
        assert_eq!(version("6.18.44-fc").to_string(), "6.18.44");
        assert_eq!(Version::parse("none"), None);
    }

    #[test]
    fn the_route_follows_from_what_is_on_disk() {
        let dir = std::env::temp_dir().join(format!("xtask-route-{}", std::process::id()));
        let mut rustc = Rustc::parse(Path::new("r"), DEBIAN, dir.to_str().unwrap()).unwrap();
        assert_eq!(rustc.route(), None);
        let src = dir.join("lib/rustlib/src/rust/library/core");
        std::fs::create_dir_all(&src).unwrap();
        std::fs::write(src.join("Cargo.toml"), "").unwrap();
        assert_eq!(rustc.route(), None, "a stable compiler cannot build core");
        rustc.nightly = true;
        assert_eq!(rustc.route(), Some(Route::BuildStd));
        let lib = dir.join("lib/rustlib/bpfel-unknown-none/lib");
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::write(lib.join("libcore-0123.rlib"), "").unwrap();
        assert_eq!(rustc.route(), Some(Route::Shipped));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
