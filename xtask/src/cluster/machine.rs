//! A machine: namespaces for network, mounts, processes and the host's name, held by a first process.
//!
//! All that runs on it dies with that process; its mounts, pods' namespaces and pinned maps go too.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::step;
use crate::process;

/// A machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Its name: `cp`, `n1`, `ext`.
    pub name: String,
    /// Name of its network namespace.
    pub netns: String,
    /// Its first process, as this machine counts.
    pub pid: u32,
    /// When that process started, in clock ticks: another one with the same number is not ours.
    pub started: u64,
}

impl Machine {
    /// Starts a machine in a network namespace that exists.
    pub fn start(name: &str, netns: &str, log: &Path) -> Result<Self> {
        let log_name = log.display().to_string();
        let log = File::create(log).with_context(|| format!("cannot create {log_name}"))?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{netns}")).args([
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--mount-proc",
        ]);
        command.args(["sh", "-c", include_str!("init.sh"), "init", name]);
        let mut holder = detached(&mut command)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start machine {name}"))?;
        let mut said = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        if said.trim() != "ready" {
            bail!("machine {name} did not get its namespaces and mounts: see {log_name}");
        }
        let pid = child_of(holder.id())
            .with_context(|| format!("machine {name} has no first process"))?;
        let started = start_time(pid).with_context(|| format!("machine {name} ended at once"))?;
        Ok(Self {
            name: name.into(),
            netns: netns.into(),
            pid,
            started,
        })
    }

    /// A command that runs on this machine.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/"])
            .arg("--")
            .arg(program);
        command
    }

    /// Starts a program that goes on when this one ends. On the machine, `/run/NAME.sh` starts it again, and `/run/NAME.pid` has its
    /// process id as the machine counts.
    pub fn spawn(&self, name: &str, log: &Path, command: &Command) -> Result<()> {
        let mut words = Command::new("env");
        for (key, value) in command.get_envs() {
            let mut word = key.to_owned();
            word.push("=");
            word.push(value.unwrap_or_default());
            words.arg(word);
        }
        words.arg(command.get_program()).args(command.get_args());
        let script = format!(
            "echo $$ >/run/{name}.pid\nexec {} >>{} 2>&1 </dev/null\n",
            process::describe(&words),
            log.display()
        );
        let file = format!("/run/{name}.sh");
        fs::write(format!("/proc/{}/root{file}", self.pid), script)
            .with_context(|| format!("cannot write {file} on machine {}", self.name))?;
        detached(self.command("sh").arg(file))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name} on machine {}", self.name))?;
        Ok(())
    }

    /// Whether its first process lives.
    pub fn is_up(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Ends all that runs on it.
    pub fn stop(&self) -> Result<()> {
        if !self.is_up() {
            return Ok(());
        }
        process::output(Command::new("kill").args(["-9", &self.pid.to_string()]))?;
        let what = format!("machine {} did not stop", self.name);
        step::until(&what, Duration::from_secs(20), || {
            if self.is_up() {
                Err("its first process is still there".into())
            } else {
                Ok(())
            }
        })
    }

    /// The programs that run on it, by name and process id.
    pub fn programs(&self) -> Vec<(String, bool)> {
        let root = format!("/proc/{}/root", self.pid);
        let files = fs::read_dir(format!("{root}/run"))
            .into_iter()
            .flatten()
            .flatten();
        let mut programs: Vec<(String, bool)> = files
            .filter_map(|file| {
                let name = file.file_name().into_string().ok()?;
                let name = name.strip_suffix(".pid")?.to_owned();
                let pid = fs::read_to_string(file.path()).ok()?;
                let runs = Path::new(&format!("{root}/proc/{}", pid.trim())).exists();
                Some((name, runs))
            })
            .collect();
        programs.sort();
        programs
    }
}

/// Without a terminal and in a process group of its own.
fn detached(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    command.stdin(Stdio::null()).process_group(0)
}

fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// When a process started, in clock ticks since boot; none for one that ended.
fn start_time(pid: u32) -> Option<u64> {
    parse_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Of the text of `/proc/PID/stat` (proc(5)): the name, in parentheses, may hold anything.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    let state = words.next()?;
    (state != "Z")
        .then(|| words.nth(18)?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 2 3";
        assert_eq!(parse_start_time(stat), Some(4711));
        assert_eq!(parse_start_time(&stat.replace(" S ", " Z ")), None);
        assert!(start_time(std::process::id()).is_some());
    }
}
