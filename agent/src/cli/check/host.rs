//! What the host must have, and what stands in the way.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::Finding;
use crate::bpf;

/// The oldest kernel that tells a socket's network namespace.
const KERNEL: (u32, u32) = (5, 14);
/// From here on programs are attached by links that survive their owner.
const TCX: (u32, u32) = (6, 6);
/// Names and numbers of `linux/capability.h`.
const NEEDED: [(&str, u32); 3] = [("NET_ADMIN", 12), ("PERFMON", 38), ("BPF", 39)];
const SYS_ADMIN: u32 = 21;

/// The checks of the host.
pub(super) fn check(socket: &Path, bpffs: &Path) -> Vec<Finding> {
    let running = UnixStream::connect(socket).is_ok();
    let mut findings = vec![
        kernel(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()),
        capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default()),
        programs(),
        file_system(bpffs),
        cgroup(),
    ];
    findings.extend(proxies());
    if running {
        let text = format!("an agent answers at {}", socket.display());
        findings.push(Finding::ok("agent", text));
    } else {
        findings.push(port(Ipv4Addr::UNSPECIFIED, 10256, "healthzBindAddress"));
        findings.push(port(Ipv4Addr::LOCALHOST, 10249, "metricsBindAddress"));
    }
    findings
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    let release = release.trim();
    match (next(), next()) {
        (Some(major), Some(minor)) if (major, minor) < KERNEL => Finding::failed(
            "kernel",
            format!(
                "{release} is too old: {}.{} or later is needed",
                KERNEL.0, KERNEL.1
            ),
        ),
        (Some(major), Some(minor)) if (major, minor) < TCX => Finding::note(
            "kernel",
            format!("{release}: before 6.6 programs are attached by clsact instead of tcx"),
        ),
        (Some(_), Some(_)) => Finding::ok("kernel", release),
        _ => Finding::note("kernel", format!("{release:?} is no version that is known")),
    }
}

fn capabilities(status: &str) -> Finding {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let Some(mask) = mask else {
        return Finding::note("capabilities", "/proc/self/status does not tell them");
    };
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(_, bit)| mask & 1 << bit == 0)
        .map(|(name, _)| *name)
        .collect();
    if !missing.is_empty() {
        return Finding::failed(
            "capabilities",
            format!(
                "{} missing: run as root, or add it to the container's securityContext.capabilities",
                missing.join(", ")
            ),
        );
    }
    if mask & 1 << SYS_ADMIN == 0 {
        return Finding::note(
            "capabilities",
            "all that are needed; without SYS_ADMIN pods on a bridge are found by their neighbour entries only (enterPodNamespaces), and domain names of rules match nothing (domainNames)",
        );
    }
    Finding::ok("capabilities", "all that are needed")
}

fn programs() -> Finding {
    match bpf::netns_cookie().and_then(|_| bpf::knows_csum_ipv6()) {
        Ok(_) => Finding::ok("programs", "the kernel takes them"),
        Err(error) => Finding::failed(
            "programs",
            format!("{error}: the kernel needs CONFIG_BPF_SYSCALL, and this process CAP_BPF"),
        ),
    }
}

/// True if a directory, or the nearest one above it that exists, is on a BPF file system.
pub(super) fn is_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.exists());
    existing
        .and_then(|path| statfs(path).ok())
        .is_some_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn file_system(bpffs: &Path) -> Finding {
    let path = bpffs.display();
    if is_bpffs(bpffs) {
        Finding::ok("bpffs", format!("{path} is on one"))
    } else {
        Finding::failed(
            "bpffs",
            format!(
                "{path} is not on a BPF file system: `mount -t bpf bpf /sys/fs/bpf`, or `sluice check --mount-bpffs /sys/fs/bpf`"
            ),
        )
    }
}

fn cgroup() -> Finding {
    match bpf::find_cgroup_root() {
        Ok(root) => Finding::ok("cgroup v2", root.display().to_string()),
        Err(error) => Finding::failed("cgroup v2", error.to_string()),
    }
}

/// Others that serve Services, or have programs where ours go.
fn proxies() -> Vec<Finding> {
    let mut found = Vec::new();
    if is_running("kube-proxy") {
        found.push("kube-proxy runs: stop it (`kubectl -n kube-system delete ds kube-proxy`)");
    }
    if says("iptables-save", &["-t", "nat"], "KUBE-SERVICES")
        || says("ip6tables-save", &["-t", "nat"], "KUBE-SERVICES")
    {
        found.push("iptables has chains of kube-proxy: `kube-proxy --cleanup` removes them");
    }
    if says("nft", &["list", "tables"], "kube-proxy") {
        found.push("nftables has a table of kube-proxy: `kube-proxy --cleanup` removes it");
    }
    let ipvs = fs::read_to_string("/proc/net/ip_vs").unwrap_or_default();
    if ipvs
        .lines()
        .any(|line| line.starts_with("TCP ") || line.starts_with("UDP "))
    {
        found.push("IPVS has virtual servers: `kube-proxy --cleanup` removes them");
    }
    let pins = [
        (
            "/sys/fs/bpf/cilium",
            "Cilium's programs are pinned: it serves Services itself unless it is told not to (kubeProxyReplacement=false)",
        ),
        (
            "/sys/fs/bpf/tc/globals/cali_v4_nat_fe",
            "Calico's eBPF dataplane is on: it serves Services itself; turn it off (bpfEnabled=false)",
        ),
    ];
    let pinned = |(path, _): &&(&str, &str)| Path::new(path).exists();
    found.extend(pins.iter().filter(pinned).map(|(_, text)| *text));
    if found.is_empty() {
        return vec![Finding::ok("other proxies", "none was found")];
    }
    let notes = found.into_iter();
    notes
        .map(|text| Finding::failed("other proxies", text))
        .collect()
}

fn is_running(name: &str) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    let named =
        |path: &Path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
    processes.flatten().any(|process| named(&process.path()))
}

/// True if a program that is there prints a text.
fn says(program: &str, args: &[&str], text: &str) -> bool {
    Command::new(program)
        .args(args)
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(text))
}

fn port(address: Ipv4Addr, port: u16, setting: &str) -> Finding {
    let check = format!("port {port}");
    match TcpListener::bind((address, port)) {
        Ok(_) => Finding::ok(check, "free"),
        Err(error) => Finding::failed(
            check,
            format!("{error}: end what uses it (kube-proxy?), or choose another by {setting}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn kernels_are_judged_by_their_version() {
        for (release, outcome) in [
            ("5.10.0-21-amd64\n", Outcome::Failed),
            ("5.15.0", Outcome::Note),
            ("6.6.1", Outcome::Ok),
            ("7.0", Outcome::Ok),
            ("custom", Outcome::Note),
        ] {
            assert_eq!(kernel(release).outcome, outcome, "{release}");
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let of = |mask: u64| capabilities(&format!("Name:\tx\nCapEff:\t{mask:016x}\n"));
        assert_eq!(of(u64::MAX).outcome, Outcome::Ok);
        assert_eq!(of(1 << 12 | 1 << 38 | 1 << 39).outcome, Outcome::Note);
        let found = of(1 << 12);
        assert_eq!(found.outcome, Outcome::Failed);
        assert!(
            found.text.starts_with("PERFMON, BPF missing"),
            "{}",
            found.text
        );
    }

    #[test]
    fn a_port_in_use_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        let found = port(Ipv4Addr::LOCALHOST, number, "metricsBindAddress");
        assert_eq!(found.outcome, Outcome::Failed);
        drop(taken);
        assert_eq!(port(Ipv4Addr::LOCALHOST, number, "x").outcome, Outcome::Ok);
    }

    #[test]
    fn only_a_bpf_file_system_is_one() {
        assert!(!is_bpffs(Path::new("/proc/self")));
    }
}
