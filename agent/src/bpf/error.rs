//! What can go wrong with the kernel programs and maps.

use std::{io, path::PathBuf};

use super::sys::MapInfo;

/// A failure to load, attach, pin, read or write.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program was built without the kernel programs.
    #[error(
        "this binary has no kernel programs in it: build it with `cargo xtask build`, or set \
         SLUICE_BPF_OBJECT to the compiled object when building"
    )]
    NoObject,
    /// The kernel programs do not parse.
    #[error("the kernel programs cannot be read: {0}")]
    BadObject(String),
    /// The pin directory is not on a BPF file system.
    #[error(
        "{} is not on a BPF file system: mount one (`mount -t bpf bpf /sys/fs/bpf`), or name \
         another directory with --bpffs", .0.display()
    )]
    NotBpffs(PathBuf),
    /// A file system operation failed.
    #[error("{what} {}: {source}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A pinned map is not laid out as these programs expect.
    #[error(
        "the pinned map {} has another layout ({}, expected {}): the running dataplane is left as \
         it is; go back to the version that made it, or remove it with `sluice cleanup`",
        .path.display(), describe(.found), describe(.expected)
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// What is pinned.
        found: Box<MapInfo>,
        /// What the programs need.
        expected: Box<MapInfo>,
    },
    /// A capacity was set for a map that has none to set.
    #[error("the capacity of map {0} cannot be set: no such map, or its size is fixed")]
    Capacity(String),
    /// A map is not in the object, or not of the types that it is used with.
    #[error("map {name}: {reason}")]
    Map {
        /// The map.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A map operation failed.
    #[error("map {name}: {what}: {source}")]
    MapIo {
        /// The map.
        name: String,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refused to create the maps or load a program.
    #[error("loading {what}: {reason}{}", remedy(.reason))]
    Load {
        /// The program, or the object as a whole.
        what: String,
        /// The kernel's answer.
        reason: String,
    },
    /// A program could not be attached or replaced.
    #[error("attaching {program} to {target}: {source}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The device or cgroup.
        target: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Something asked of the kernel failed.
    #[error("{what}: {source}")]
    Kernel {
        /// What was asked.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no cgroup v2 hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted: mount one (`mount -t cgroup2 none /sys/fs/cgroup`), \
         or name it with --cgroup-root"
    )]
    NoCgroup,
}

impl Error {
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            what,
            path: path.into(),
            source,
        }
    }

    pub(super) fn map(name: &str, what: &'static str, source: io::Error) -> Self {
        Self::MapIo {
            name: name.to_owned(),
            what,
            source,
        }
    }

    /// The operating system's error number, if one is the cause.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Self::File { source, .. }
            | Self::MapIo { source, .. }
            | Self::Attach { source, .. }
            | Self::Kernel { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

fn describe(info: &MapInfo) -> String {
    format!(
        "type {}, key {} B, value {} B, {} entries, flags {:#x}",
        info.kind, info.key_size, info.value_size, info.max_entries, info.flags
    )
}

fn remedy(reason: &str) -> &'static str {
    if reason.contains("os error 1)") {
        " (it needs CAP_BPF and CAP_NET_ADMIN: run as root)"
    } else {
        ""
    }
}
