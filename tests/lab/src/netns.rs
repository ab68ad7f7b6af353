//! Named network namespaces: made, entered and removed.
//!
//! A namespace is a thread's, so code runs in one by running on a thread that entered it; sockets
//! and child processes made there stay there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::Run;

/// Where named namespaces live, as the `ip` program has it.
const NETNS_DIR: &str = "/run/netns";

/// A network namespace of a run. Dropping it ends the processes in it and removes it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
    /// The run's folder must outlive its namespaces.
    run: Arc<Run>,
}

impl Netns {
    /// Makes the namespace `sl-<run id>-<name>` with its loopback device up and IPv6 addresses
    /// that are usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// The name is taken, or the kernel refuses.
    pub fn create(run: &Arc<Run>, name: &str) -> Result<Netns> {
        let name = run.netns_name(name);
        output(Command::new("ip").args(["netns", "add", &name]))
            .with_context(|| format!("cannot make the namespace {name}"))?;
        let path = Path::new(NETNS_DIR).join(&name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let netns = Netns {
            name,
            file,
            run: run.clone(),
        };
        netns.sysctl(&[
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/router_solicitations", "0"),
        ])?;
        netns.ip(["link set lo up"])?;
        Ok(netns)
    }

    /// The full name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace, for `nsenter --net=`.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// The run it belongs to.
    pub fn run_of(&self) -> &Arc<Run> {
        &self.run
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// Not root.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `work` on a thread inside the namespace and returns its result; its panic goes on in
    /// the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let joined = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter().expect("root may enter a namespace it made");
                work()
            });
            inside.join()
        });
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `work` on a thread inside the namespace while the caller goes on.
    pub fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let netns = self.clone();
        thread::spawn(move || {
            netns.enter().expect("root may enter a namespace it made");
            work()
        })
    }

    /// Starts a child process inside the namespace.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn_process(&self, command: &mut Command) -> io::Result<std::process::Child> {
        self.run(|| command.spawn())
    }

    /// Runs a program inside the namespace to its end and returns what it wrote to its output.
    ///
    /// # Errors
    /// The program cannot be started or fails; the error carries what it wrote to its error output.
    pub fn command<S: AsRef<OsStr> + Sync>(&self, program: &str, args: &[S]) -> Result<String> {
        self.run(|| output(Command::new(program).args(args)))
    }

    /// Runs `ip` commands (without the word `ip`) in the namespace, in one batch.
    ///
    /// # Errors
    /// One of them fails; the error names it.
    pub fn ip<S: AsRef<str>>(&self, lines: impl IntoIterator<Item = S>) -> Result<()> {
        let lines: Vec<String> = lines
            .into_iter()
            .map(|line| line.as_ref().to_owned())
            .collect();
        ip_batch(&["-n", &self.name], &lines)
    }

    /// Writes sysctls, given as paths below `/proc/sys`.
    ///
    /// # Errors
    /// One of them cannot be written.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                let path = Path::new("/proc/sys").join(key);
                fs::write(&path, value)
                    .with_context(|| format!("cannot write {value} to {}", path.display()))?;
            }
            Ok(())
        })
    }

    /// The ids of the processes in the namespace.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn processes(&self) -> Result<Vec<u32>> {
        processes_in(&self.path())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.run.is_kept() {
            return;
        }
        if let Err(error) = remove(&self.path()) {
            eprintln!("sluice-lab: {error:#}");
        }
    }
}

/// Runs `ip <options> -batch -` on the lines.
///
/// # Errors
/// One of them fails; the error names it.
pub fn ip_batch(options: &[&str], lines: &[String]) -> Result<()> {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `ip` (Debian package iproute2)")?;
    let mut input = child.stdin.take().context("no pipe to `ip`")?;
    input.write_all((lines.join("\n") + "\n").as_bytes())?;
    drop(input);
    let done = child.wait_with_output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!(
            "ip {}: {}\nthe batch was:\n{}",
            options.join(" "),
            said.trim(),
            lines.join("\n")
        );
    }
    Ok(())
}

/// Ends the processes of every namespace whose name starts so, and removes the namespaces.
///
/// # Errors
/// One of them cannot be removed.
pub fn remove_with_prefix(prefix: &str) -> Result<()> {
    let entries = match fs::read_dir(NETNS_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {NETNS_DIR}")),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    for pid in processes_in(path)? {
        if let Ok(pid) = i32::try_from(pid) {
            // It may have ended in between.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    // Not mounted when its making stopped half-way.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the namespace {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The processes, this one excepted, whose main thread is in the namespace.
fn processes_in(path: &Path) -> Result<Vec<u32>> {
    use std::os::unix::fs::MetadataExt;
    let Ok(wanted) = fs::metadata(path).map(|meta| (meta.dev(), meta.ino())) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let its = fs::metadata(entry.path().join("ns/net")).map(|meta| (meta.dev(), meta.ino()));
        if pid != std::process::id() && its.is_ok_and(|its| its == wanted) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Runs a program to its end; its output, or an error with what it said.
fn output(command: &mut Command) -> Result<String> {
    let done = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("{command:?}: {}: {}", done.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
