//! What this machine must have: found, or installed.

mod apt;
mod bpf;
mod cluster;
mod host;

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Result, bail};

use crate::privilege::Privilege;

/// What a task needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A compiler and a linker for the kernel programs.
    Bpf,
    /// The programs that tests, demo and benchmarks call.
    Programs,
    /// A kernel, its file systems and the right to use them.
    Kernel,
    /// The programs that a Kubernetes cluster is built with and made of.
    Cluster,
    /// The emulator of a guest, and what its file system is made with.
    Guest,
    /// Formatter and lints.
    Lint,
}

/// Options of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only report; exit with 1 if something is missing.
    #[arg(long)]
    check: bool,
    /// Install without asking.
    #[arg(long, conflicts_with = "check")]
    yes: bool,
}

/// One thing that was looked for.
#[derive(Debug)]
pub struct Finding {
    /// What it is.
    pub name: &'static str,
    /// What was found.
    pub state: State,
}

/// What was found.
#[derive(Debug)]
pub enum State {
    /// It is there: which one.
    Present(String),
    /// It is not.
    Missing {
        /// Why it does not count as present.
        why: String,
        /// What a person does about it.
        remedy: String,
        /// What setup does about it.
        fix: Option<Fix>,
    },
}

/// What setup can do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fix {
    /// Install this Debian package.
    Package(&'static str),
    /// Install a compiler for the kernel programs.
    Compiler,
    /// Build the linker.
    Linker,
    /// Install the lints of the compiler for the kernel programs.
    BpfClippy,
    /// Add this component to the toolchain in use.
    Component(&'static str),
    /// Get a Go that is new enough.
    Go,
    /// Mount the BPF file system.
    MountBpffs,
}

const ALL: [Part; 6] = [
    Part::Bpf,
    Part::Programs,
    Part::Kernel,
    Part::Cluster,
    Part::Guest,
    Part::Lint,
];

/// `cargo xtask setup`.
pub fn run(args: &Args) -> Result<()> {
    let findings = look(&ALL);
    for finding in &findings {
        eprintln!("{}", finding.line());
    }
    if findings.iter().all(Finding::is_present) {
        eprintln!("nothing is missing");
        return Ok(());
    }
    if args.check {
        bail!("{} missing: run `cargo xtask setup`", count(&findings));
    }
    let fixes = fixes(&findings);
    if !fixes.is_empty() && !args.yes && io::stdin().is_terminal() && !confirmed()? {
        bail!("nothing was installed");
    }
    repair(&ALL, fixes)
}

/// Makes sure that this machine has what a task needs; silent if it has.
pub fn ensure(parts: &[Part]) -> Result<()> {
    let findings = look(parts);
    if findings.iter().all(Finding::is_present) {
        return Ok(());
    }
    for finding in findings.iter().filter(|finding| !finding.is_present()) {
        eprintln!("{}", finding.line());
    }
    // Said before minutes of installing, not after: nothing below can be cured here.
    let (hopeless, curable): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(Finding::is_hopeless);
    if hopeless.is_empty() {
        repair(parts, fixes(&curable))
    } else {
        still_missing(&hopeless)
    }
}

/// Does what can be done, in the order of need, and fails with what is still missing.
fn repair(parts: &[Part], fixes: Vec<Fix>) -> Result<()> {
    let privilege = Privilege::find();
    let packages: Vec<&str> = fixes
        .iter()
        .filter_map(|fix| {
            if let Fix::Package(name) = fix {
                Some(*name)
            } else {
                None
            }
        })
        .collect();
    if !packages.is_empty() {
        apt::install(&privilege, &packages)?;
    }
    for fix in fixes {
        match fix {
            Fix::Package(_) => {}
            Fix::Compiler => bpf::install_compiler(&privilege)?,
            Fix::Linker => bpf::install_linker(&privilege)?,
            Fix::BpfClippy => bpf::install_clippy(&privilege)?,
            Fix::Component(name) => host::add_component(name)?,
            Fix::Go => cluster::install_go(&privilege)?,
            Fix::MountBpffs => host::mount_bpffs(&privilege)?,
        }
    }
    let missing: Vec<Finding> = look(parts)
        .into_iter()
        .filter(|finding| !finding.is_present())
        .collect();
    if missing.is_empty() {
        eprintln!("set-up is complete");
        return Ok(());
    }
    still_missing(&missing)
}

fn still_missing(findings: &[Finding]) -> Result<()> {
    let lines: Vec<String> = findings.iter().map(Finding::line).collect();
    bail!(
        "this machine lacks what the task needs:\n{}",
        lines.join("\n")
    );
}

fn look(parts: &[Part]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for part in parts {
        match part {
            Part::Bpf => findings.extend(bpf::look()),
            Part::Programs => findings.extend(host::programs()),
            Part::Kernel => findings.extend(host::kernel()),
            Part::Cluster => findings.extend(cluster::look()),
            Part::Guest => findings.extend(host::guest()),
            Part::Lint => findings.extend(host::lints().into_iter().chain([bpf::clippy()])),
        }
    }
    findings
}

/// Each fix once, in the order in which they build on each other.
fn fixes(findings: &[Finding]) -> Vec<Fix> {
    let mut fixes: Vec<Fix> = findings
        .iter()
        .filter_map(|finding| match &finding.state {
            State::Missing { fix, .. } => fix.clone(),
            State::Present(_) => None,
        })
        .collect();
    fixes.sort();
    fixes.dedup();
    fixes
}

fn count(findings: &[Finding]) -> String {
    match findings
        .iter()
        .filter(|finding| !finding.is_present())
        .count()
    {
        1 => "one thing is".into(),
        n => format!("{n} things are"),
    }
}

fn confirmed() -> Result<bool> {
    eprint!("Install what is missing? [Y/n] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(["", "y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

impl Finding {
    /// Something that is there.
    fn present(name: &'static str, what: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Present(what.into()),
        }
    }

    /// Something that is not.
    fn missing(
        name: &'static str,
        why: impl Into<String>,
        remedy: impl Into<String>,
        fix: Option<Fix>,
    ) -> Self {
        let (why, remedy) = (why.into(), remedy.into());
        Self {
            name,
            state: State::Missing { why, remedy, fix },
        }
    }

    fn is_present(&self) -> bool {
        matches!(self.state, State::Present(_))
    }

    /// Missing, and nothing that setup does would help.
    fn is_hopeless(&self) -> bool {
        matches!(self.state, State::Missing { fix: None, .. })
    }

    /// One line for people.
    fn line(&self) -> String {
        match &self.state {
            State::Present(what) => format!("ok       {}: {what}", self.name),
            State::Missing { why, remedy, .. } => {
                format!("missing  {}: {why}; {remedy}", self.name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixes_come_once_and_in_order() {
        let missing = |fix| Finding::missing("x", "gone", "get it", fix);
        let findings = [
            missing(Some(Fix::Linker)),
            Finding::present("y", "here"),
            missing(Some(Fix::Compiler)),
            missing(Some(Fix::Package("nftables"))),
            missing(None),
            missing(Some(Fix::Package("nftables"))),
        ];
        assert_eq!(
            fixes(&findings),
            [Fix::Package("nftables"), Fix::Compiler, Fix::Linker]
        );
        assert_eq!(count(&findings), "5 things are");
    }

    #[test]
    fn every_missing_thing_is_one_line_with_its_remedy() {
        let finding = Finding::missing("nft", "not installed", "apt-get install nftables", None);
        assert_eq!(
            finding.line(),
            "missing  nft: not installed; apt-get install nftables"
        );
        assert!(finding.is_hopeless());
    }
}
