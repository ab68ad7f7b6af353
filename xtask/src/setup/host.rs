//! The kernel, its file systems, system programs and the lints of the host's toolchain.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Finding, Fix};
use crate::{guest, privilege::Privilege, process, toolchain::Version, workspace};

/// The oldest kernel that has what the programs use.
const OLDEST_KERNEL: Version = Version { parts: [5, 10, 0] };

const BPFFS: &str = "/sys/fs/bpf";

/// Programs that tests, demo and benchmarks call, with their Debian packages.
const PROGRAMS: [(&str, &str); 3] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
];

/// System programs, and a linker for the host.
pub fn programs() -> Vec<Finding> {
    let mut findings: Vec<Finding> = PROGRAMS
        .iter()
        .map(|(name, package)| program(name, package))
        .collect();
    findings.push(program("cc", "gcc"));
    findings
}

/// The kernel's version, BTF, cgroups and BPF file system, and the right to use them.
pub fn kernel() -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    vec![
        version(release.trim()),
        btf(),
        cgroups(&mounts),
        bpffs(&mounts),
        root(),
    ]
}

/// The formatter and the lints of the toolchain in use.
pub fn lints() -> Vec<Finding> {
    [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .map(|(subcommand, component)| {
            let said = process::output(workspace::cargo().args([subcommand, "--version"]));
            match said {
                Ok(version) => Finding::present(component, version.trim()),
                Err(_) => Finding::missing(
                    component,
                    "not part of the toolchain in use",
                    format!("rustup component add {component}"),
                    Some(Fix::Component(component)),
                ),
            }
        })
        .collect()
}

/// Adds a component to the toolchain in use.
pub fn add_component(name: &str) -> Result<()> {
    let rustup = process::find("rustup")
        .with_context(|| format!("there is no rustup: install {name} with what installed cargo"))?;
    eprintln!("adding {name} to the toolchain");
    process::run(Command::new(rustup).args(["component", "add", name]))
}

/// Mounts the BPF file system where the agent expects it.
pub fn mount_bpffs(privilege: &Privilege) -> Result<()> {
    let mut command = privilege
        .command([], "mount")
        .context("cannot mount the BPF file system")?;
    process::run(command.args(["-t", "bpf", "bpf", BPFFS]))
}

/// The emulator of a guest, and what its file system is made with; nothing where there is no guest.
pub fn guest() -> Vec<Finding> {
    if !guest::is_possible() {
        return Vec::new();
    }
    [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("strip", "binutils"),
    ]
    .into_iter()
    .map(|(name, package)| program(name, package))
    .collect()
}

/// A program, and the Debian package that has it.
pub fn program(name: &'static str, package: &'static str) -> Finding {
    match process::find(name) {
        Some(path) => Finding::present(name, path.display().to_string()),
        None => Finding::missing(
            name,
            "not installed",
            format!("apt-get install {package}"),
            Some(Fix::Package(package)),
        ),
    }
}

fn version(release: &str) -> Finding {
    const NAME: &str = "kernel";
    match Version::parse(release) {
        Some(version) if version >= OLDEST_KERNEL => Finding::present(NAME, release),
        _ => Finding::missing(
            NAME,
            format!("'{release}' is older than {OLDEST_KERNEL}"),
            format!("boot Linux {OLDEST_KERNEL} or newer"),
            None,
        ),
    }
}

fn btf() -> Finding {
    const NAME: &str = "BTF";
    const FILE: &str = "/sys/kernel/btf/vmlinux";
    if Path::new(FILE).is_file() {
        Finding::present(NAME, FILE)
    } else {
        Finding::missing(
            NAME,
            format!("no {FILE}"),
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            None,
        )
    }
}

fn cgroups(mounts: &str) -> Finding {
    const NAME: &str = "cgroup v2";
    match mount_of(mounts, "cgroup2") {
        Some(path) => Finding::present(NAME, path.display().to_string()),
        None => Finding::missing(
            NAME,
            "not mounted",
            "mount it (mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified) or boot with systemd.unified_cgroup_hierarchy=1",
            None,
        ),
    }
}

fn bpffs(mounts: &str) -> Finding {
    const NAME: &str = "BPF file system";
    match mount_of(mounts, "bpf") {
        Some(path) if path == Path::new(BPFFS) => Finding::present(NAME, BPFFS),
        _ => Finding::missing(
            NAME,
            format!("not mounted on {BPFFS}"),
            format!("mount -t bpf bpf {BPFFS}"),
            Some(Fix::MountBpffs),
        ),
    }
}

fn root() -> Finding {
    const NAME: &str = "root";
    match Privilege::find() {
        Privilege::Root => Finding::present(NAME, "this is root"),
        Privilege::Sudo(sudo) => Finding::present(NAME, format!("by {}", sudo.display())),
        Privilege::None(reason) => Finding::missing(NAME, "not root", reason, None),
    }
}

/// Where a file system of this type is mounted, by `/proc/mounts`; the usual place counts before others.
fn mount_of(mounts: &str, kind: &str) -> Option<PathBuf> {
    let mut places: Vec<&str> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let place = words.next()?;
            (words.next()? == kind).then_some(place)
        })
        .collect();
    places.sort_by_key(|place| !place.starts_with("/sys/fs/"));
    places.first().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    const MOUNTS: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\nnone /mnt/bpf bpf rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n\
                          cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    #[test]
    fn mounts_are_found_by_type() {
        assert_eq!(
            mount_of(MOUNTS, "cgroup2").unwrap(),
            Path::new("/sys/fs/cgroup/unified")
        );
        assert_eq!(mount_of(MOUNTS, "bpf").unwrap(), Path::new(BPFFS));
        assert_eq!(mount_of(MOUNTS, "nfs"), None);
    }

    #[test]
    fn old_kernels_are_named() {
        assert!(matches!(version("6.1.0-18-amd64").state, State::Present(_)));
        assert!(matches!(version("5.10.0").state, State::Present(_)));
        let line = version("5.4.0-150-generic").line();
        assert!(
            line.contains("5.4.0-150-generic") && line.contains("5.10.0"),
            "{line}"
        );
    }

    #[test]
    fn a_missing_bpffs_is_mounted_and_a_missing_cgroup_v2_is_not() {
        assert!(!bpffs("").is_hopeless());
        assert!(cgroups("").is_hopeless());
    }
}
