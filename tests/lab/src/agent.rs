//! Agents: one `sluice agent` for each node, in its namespace.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::topology::Node;
use crate::wait;

/// How long an agent may take to load its programs and read the first objects, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long an agent may take to end.
const END: Duration = Duration::from_secs(30);

/// A node's agent, running or not. Dropping it kills it; what it pinned goes with the run.
#[derive(Debug)]
pub struct Agent {
    node: Arc<Node>,
    /// Where its objects come from: a flag and a path.
    source: (&'static str, PathBuf),
    more: Vec<String>,
    child: Option<Child>,
}

impl Agent {
    /// An agent for a node, not started, on a folder of manifests.
    pub fn new(node: &Arc<Node>, manifests: &Path) -> Agent {
        Agent::of(node, ("--manifests", manifests.to_owned()))
    }

    /// An agent for a node, not started, on an API server by a kubeconfig file.
    pub fn on_api(node: &Arc<Node>, kubeconfig: &Path) -> Agent {
        Agent::of(node, ("--kubeconfig", kubeconfig.to_owned()))
    }

    fn of(node: &Arc<Node>, source: (&'static str, PathBuf)) -> Agent {
        Agent {
            node: node.clone(),
            source,
            more: Vec::new(),
            child: None,
        }
    }

    /// Adds arguments to those of `sluice agent`.
    pub fn with_args(mut self, args: &[&str]) -> Agent {
        self.more.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Starts it and waits until it is in sync.
    ///
    /// # Errors
    /// It does not start, or is not in sync in time; the error ends with what it logged.
    pub fn start(&mut self) -> Result<()> {
        self.start_only()?;
        self.wait_in_sync(START)
    }

    /// Starts it.
    ///
    /// # Errors
    /// It runs already, or the program is not found.
    pub fn start_only(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("the agent of {} runs already", self.node.name());
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(program()?);
        command.arg("agent").arg(self.source.0).arg(&self.source.1);
        command.args(["--node-name", &self.node.name()]);
        command
            .arg("--bpffs")
            .arg(self.bpffs())
            .arg("--socket")
            .arg(self.socket());
        command.args(&self.more);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = self.node.netns().spawn_process(&mut command);
        self.child = Some(child.with_context(|| format!("cannot run {command:?}"))?);
        Ok(())
    }

    /// Waits until `sluice status` says that it is in sync.
    ///
    /// # Errors
    /// It ends or takes longer; the error ends with what it logged.
    pub fn wait_in_sync(&mut self, within: Duration) -> Result<()> {
        let mut ended = None;
        let waited = wait::until(within, "the agent to be in sync", || {
            ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().transpose());
            match &ended {
                Some(_) => Ok(false),
                None => match self.status() {
                    Ok(status) if status["inSync"] == true => Ok(true),
                    Ok(status) => bail!("its status is {status}"),
                    Err(error) => Err(error),
                },
            }
        });
        match waited {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.child = None;
                bail!(
                    "the agent of {} ended: {ended:?}\n{}",
                    self.node.name(),
                    self.last_words()
                )
            }
            Err(error) => {
                Err(error.context(format!("{}:\n{}", self.node.name(), self.last_words())))
            }
        }
    }

    /// Makes sure that it runs.
    ///
    /// # Errors
    /// It has ended; the error ends with what it logged.
    pub fn ensure_running(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("the agent does not run")?;
        if let Some(status) = child.try_wait()? {
            self.child = None;
            bail!("the agent ended, {status}:\n{}", self.last_words());
        }
        Ok(())
    }

    /// What `sluice status -o json` prints.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn status(&self) -> Result<Value> {
        self.query(&["status"])
    }

    /// What a command of the command line prints as JSON, asked of this agent.
    ///
    /// # Errors
    /// The command fails.
    pub fn query(&self, command: &[&str]) -> Result<Value> {
        let socket = self.socket().display().to_string();
        let text = self.sluice(&[command, &["-o", "json", "--socket", &socket]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("sluice {command:?} wrote {text:?}"))
    }

    /// What a command of the command line prints, asked of this agent.
    ///
    /// # Errors
    /// The command fails.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let socket = self.socket().display().to_string();
        self.sluice(&[command, &["--socket", &socket]].concat())
    }

    /// SIGKILL. Its programs stay.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the agent does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for its end. Its programs stay.
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub fn terminate(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the agent does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        wait::until(END, "the agent to end after SIGTERM", || {
            child.try_wait()?.context("it still runs")
        })?;
        Ok(())
    }

    /// Waits until it ends by itself. Its programs stay.
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the agent does not run")?;
        let ended = wait::until(END, "the agent to end", || {
            child.try_wait()?.context("it still runs")
        });
        if ended.is_err() {
            self.child = Some(child);
        }
        ended
    }

    /// `sluice cleanup`: removes its programs and maps.
    ///
    /// # Errors
    /// The command fails.
    pub fn cleanup(&self) -> Result<()> {
        let bpffs = self.bpffs().display().to_string();
        self.sluice(&["cleanup", "--bpffs", &bpffs]).map(drop)
    }

    /// The process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The folder of its pins.
    pub fn bpffs(&self) -> PathBuf {
        self.node.netns().run_of().bpffs().join(self.node.name())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.file("log")
    }

    /// The end of its log, for error messages.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    fn sluice(&self, args: &[&str]) -> Result<String> {
        let program = program()?.display().to_string();
        self.node.netns().command(&program, args)
    }

    fn file(&self, extension: &str) -> PathBuf {
        let name = format!("{}.{extension}", self.node.name());
        self.node.netns().run_of().dir().join(name)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.node.netns().run_of().is_kept() {
            return;
        }
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `$SLUICE_BIN`, or `sluice` beside this program.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SLUICE_BIN") {
        return Ok(path.into());
    }
    let this = std::env::current_exe().context("cannot find this program")?;
    let beside = this.with_file_name("sluice");
    if beside.is_file() {
        return Ok(beside);
    }
    bail!("SLUICE_BIN does not name the sluice program: use `cargo xtask`")
}
