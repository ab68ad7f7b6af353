//! What a Kubernetes cluster is built with and made of.

use std::path::Path;

use anyhow::Result;

use super::{Finding, Fix, apt, host};
use crate::{
    privilege::Privilege,
    process,
    toolchain::{self, OLDEST_GO},
};

/// Programs that machines of a cluster or images call, with their Debian packages.
const PROGRAMS: [(&str, &str); 19] = [
    ("busybox", "busybox"),
    ("conntrack", "conntrack"),
    ("curl", "curl"),
    ("dash", "dash"),
    ("dig", "bind9-dnsutils"),
    ("ipset", "ipset"),
    ("iptables", "iptables"),
    ("iperf3", "iperf3"),
    ("kill", "procps"),
    ("nc", "netcat-openbsd"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("runc", "runc"),
    ("socat", "socat"),
    ("sysctl", "procps"),
    ("tar", "tar"),
    ("tcpdump", "tcpdump"),
    ("unshare", "util-linux"),
    ("wget", "wget"),
];

/// Go, and the programs.
pub fn look() -> Vec<Finding> {
    let mut findings: Vec<Finding> = PROGRAMS
        .iter()
        .map(|(name, package)| host::program(name, package))
        .collect();
    findings.push(plugins());
    findings.push(go());
    findings
}

/// Installs a Go that is new enough.
pub fn install_go(privilege: &Privilege) -> Result<()> {
    if process::find("go").is_none() {
        apt::install(privilege, &["golang-go"])?;
    }
    if toolchain::find_go().is_some() {
        return Ok(());
    }
    toolchain::install_go()
}

fn plugins() -> Finding {
    const NAME: &str = "network plugins";
    const FILE: &str = "/usr/lib/cni/ptp";
    if Path::new(FILE).is_file() {
        return Finding::present(NAME, FILE);
    }
    const PACKAGE: &str = "containernetworking-plugins";
    Finding::missing(
        NAME,
        format!("no {FILE}"),
        format!("apt-get install {PACKAGE}"),
        Some(Fix::Package(PACKAGE)),
    )
}

fn go() -> Finding {
    const NAME: &str = "go";
    match toolchain::find_go() {
        Some((path, version)) => Finding::present(NAME, format!("{} {version}", path.display())),
        None => Finding::missing(
            NAME,
            format!("no Go {OLDEST_GO} or newer"),
            "`cargo xtask setup` gets one from the Go module proxy",
            Some(Fix::Go),
        ),
    }
}
