//! `sluice check`: whether this host can run Sluice, and whether what it serves answers.

mod host;
mod services;

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use serde::Serialize;

use super::print;
use crate::args::{CheckArgs, Output};

/// A check failed; what failed has been printed.
#[derive(Debug, thiserror::Error)]
#[error("{0} of {1} checks failed")]
pub struct Failed(usize, usize);

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it stands.
    pub outcome: Outcome,
    /// What was found and, unless it is well, what cures it.
    pub text: String,
}

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// To be known; Sluice works.
    Note,
    /// Sluice would not work, or does not.
    Failed,
}

impl Finding {
    fn new(check: impl Into<String>, outcome: Outcome, text: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            outcome,
            text: text.into(),
        }
    }

    fn ok(check: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(check, Outcome::Ok, text)
    }

    fn note(check: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(check, Outcome::Note, text)
    }

    fn failed(check: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(check, Outcome::Failed, text)
    }
}

/// Runs the checks that were asked for.
pub(super) fn run(socket: &Path, args: &CheckArgs) -> Result<()> {
    if let Some(target) = &args.mount_bpffs {
        return mount_bpffs(target);
    }
    let findings = if args.services {
        services::check(socket)?
    } else {
        host::check(socket, &args.bpffs)
    };
    let text = match args.output.output {
        Output::Json => serde_json::to_string_pretty(&findings)?,
        Output::Yaml => serde_saphyr::to_string(&findings)?,
        Output::Table | Output::Wide => lines(&findings),
    };
    print(text.trim_end())?;
    let failed = findings
        .iter()
        .filter(|finding| finding.outcome == Outcome::Failed)
        .count();
    if failed > 0 {
        return Err(Failed(failed, findings.len()).into());
    }
    Ok(())
}

fn lines(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let outcome = match finding.outcome {
            Outcome::Ok => "ok    ",
            Outcome::Note => "note  ",
            Outcome::Failed => "FAILED",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{outcome} {}: {}", finding.check, finding.text);
    }
    text
}

/// Mounts a BPF file system, unless there is one.
fn mount_bpffs(target: &Path) -> Result<()> {
    if host::is_bpffs(target) {
        return print(&format!(
            "{} is a BPF file system already",
            target.display()
        ));
    }
    mount(
        Some("bpf"),
        target,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=700"),
    )
    .with_context(|| {
        format!(
            "mounting a BPF file system at {}: run it as root, on a directory of the host",
            target.display()
        )
    })?;
    print(&format!(
        "mounted a BPF file system at {}",
        target.display()
    ))
}
