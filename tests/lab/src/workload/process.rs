//! A server as a process of its own, so that ending it is ending a process.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::server::ServerSpec;
use crate::netns::Netns;
use crate::run::Run;
use crate::wait;

/// How long a process that was asked to end may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What `sluice-lab serve` says when all its ports are bound.
pub const LISTENING: &str = "listening";

/// A running server process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    run: Arc<Run>,
}

impl Process {
    /// Starts `sluice-lab serve` in a namespace and waits until it listens.
    ///
    /// The child ends by itself when this process does, unless its run is a lasting one.
    ///
    /// # Errors
    /// The program is not found, or a port is taken.
    pub fn start(netns: &Netns, spec: &ServerSpec) -> Result<Process> {
        let program = lab_program()?;
        let run = netns.run_of().clone();
        let lasting = run.is_lasting();
        let mut command = Command::new(&program);
        command
            .arg("serve")
            .args(arguments(spec))
            .stdout(Stdio::piped());
        command.stdin(if lasting {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        if lasting {
            command.arg("--stay");
        }
        let mut child = netns
            .spawn_process(&mut command)
            .with_context(|| format!("cannot run {}", program.display()))?;
        let said = child.stdout.take().context("no pipe from the server")?;
        let process = Process { child, run };
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        if line.trim() != LISTENING {
            bail!("the server {} in {} did not start", spec.name, netns.name());
        }
        Ok(process)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: its connections are reset.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM: it finishes what is under way. Returns when it has ended.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn terminate(mut self) -> Result<()> {
        kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            Signal::SIGTERM,
        )?;
        wait::until(PATIENCE, "a server to end after SIGTERM", || {
            self.child.try_wait()?.context("it still runs")
        })?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.run.is_kept() {
            // It may have ended already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// `$SLUICE_LAB_BIN`, or this program when it is `sluice-lab`.
pub(crate) fn lab_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SLUICE_LAB_BIN") {
        return Ok(path.into());
    }
    let this = std::env::current_exe().context("cannot find this program")?;
    let name = this.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("sluice-lab") {
        // Still this program when its file was replaced by a new build.
        return Ok("/proc/self/exe".into());
    }
    bail!(
        "SLUICE_LAB_BIN does not name the sluice-lab program: run the tests by `cargo xtask test`"
    )
}

fn arguments(spec: &ServerSpec) -> Vec<String> {
    let mut arguments = vec![
        format!("--name={}", spec.name),
        format!("--version={}", spec.version),
    ];
    arguments.extend(spec.tcp.iter().map(|port| format!("--tcp={port}")));
    arguments.extend(spec.udp.iter().map(|port| format!("--udp={port}")));
    arguments.extend(spec.udp_at.iter().map(|ip| format!("--udp-at={ip}")));
    if spec.not_ready {
        arguments.push("--not-ready".to_owned());
    }
    arguments
}
