//! kube-router's policy controller on a node, on iptables and ipset, with an API server of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::server::Server;
use crate::kube::api::Api;
use crate::topology::{Node, Pod};
use crate::wait;

/// Where the program is to be had.
const RELEASES: &str = "https://github.com/cloudnativelabs/kube-router/releases";
/// How long it may take until all policies are in force.
const IN_FORCE: Duration = Duration::from_secs(900);
/// Between two looks at its log.
const LOOK: Duration = Duration::from_millis(250);
/// Having logged nothing for so long, it has nothing more to do.
const QUIET: Duration = Duration::from_secs(3);
/// What it is told: to enforce policies and nothing else, to tell of each round, and not to program all anew
/// every few minutes.
const FLAGS: [&str; 8] = [
    "--run-firewall=true",
    "--run-router=false",
    "--run-service-proxy=false",
    "--enable-ipv4=true",
    "--enable-ipv6=false",
    "--health-port=0",
    "--iptables-sync-period=24h",
    "-v=1",
];
/// What it logs at the beginning of a round.
const BEGINS: &str = "Starting sync of iptables";
/// And at its end.
const ENDS: &str = "sync iptables took";
/// And when it gives one up.
const FAILS: &str = "Aborting sync";

/// The program.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

impl Program {
    /// The program at a path, if it is kube-router.
    ///
    /// # Errors
    /// It is not; or one that it calls is missing.
    pub fn at(path: &Path) -> Result<Program> {
        let wrong = || {
            let path = path.display();
            format!(
                "--kube-router {path}: not the program kube-router, which is to be had at {RELEASES}"
            )
        };
        let path = fs::canonicalize(path).with_context(wrong)?;
        let version = said(Command::new(&path).arg("--version")).with_context(wrong)?;
        ensure!(
            version.contains("kube-router"),
            "{}: it says {version:?}",
            wrong()
        );
        for (program, package) in [("iptables", "iptables"), ("ipset", "ipset")] {
            let version = said(Command::new(program).arg("--version"));
            version.with_context(|| {
                format!("--kube-router: cannot run {program}, which kube-router calls (Debian package {package})")
            })?;
        }
        eprintln!("{}", version.lines().next().unwrap_or_default());
        Ok(Program(path))
    }
}

/// What a program prints, on either output.
fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(said)
}

/// kube-router on a node. It ends with this; what it programmed goes with the node.
pub struct KubeRouter {
    child: Child,
    begun: SystemTime,
    log: PathBuf,
    node: Arc<Node>,
    /// After the process that watches it.
    server: Server,
}

impl KubeRouter {
    /// Starts it on a node, with what an API server holds.
    ///
    /// # Errors
    /// The program does not start.
    pub fn start(program: &Program, node: &Arc<Node>, server: Server) -> Result<KubeRouter> {
        let name = format!("kube-router-{}.log", node.name());
        let log = node.netns().run_of().dir().join(name);
        let output = File::create(&log)?;
        let mut command = Command::new(&program.0);
        command.args(FLAGS);
        command.arg(format!("--hostname-override={}", node.name()));
        command.arg("--kubeconfig").arg(&server.kubeconfig);
        command.stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let begun = SystemTime::now();
        let child = node.netns().spawn_process(&mut command);
        Ok(KubeRouter {
            child: child.with_context(|| format!("cannot run {}", program.0.display()))?,
            begun,
            log,
            node: Arc::clone(node),
            server,
        })
    }

    /// A client of its API server.
    pub fn api(&self) -> &Api {
        &self.server.api
    }

    /// Waits until its chains for the pods are there and it has nothing more to do.
    ///
    /// # Errors
    /// It ends, gives up, or takes too long; the error ends with what it logged.
    pub fn await_settled(&mut self, pods: &[Pod; 2]) -> Result<()> {
        let what = format!("kube-router on {} to program all", self.node.name());
        let waited = wait::until(IN_FORCE, &what, || {
            thread::sleep(LOOK);
            if let Some(status) = self.child.try_wait()? {
                return Ok(Err(format!("kube-router ended, {status}")));
            }
            let log = fs::read_to_string(&self.log)?;
            if let Some(line) = log.lines().find(|line| line.contains(FAILS)) {
                return Ok(Err(format!("kube-router gave up: {}", cut(line))));
            }
            ensure!(idle(&log), "it is at work");
            let last = fs::metadata(&self.log)?.modified()?;
            ensure!(last.elapsed()? > QUIET, "it has just been at work");
            Ok(Ok(last))
        });
        let last = match waited {
            Ok(Ok(last)) => last,
            Ok(Err(why)) => bail!("{why}\n{}", self.last_words()),
            Err(error) => return Err(error.context(self.last_words())),
        };
        let took = last.duration_since(self.begun)?.as_secs_f64();
        eprintln!(
            "kube-router on {}: at rest after {took:.1} s",
            self.node.name()
        );
        let chain = ["-w", "-S", "KUBE-ROUTER-FORWARD"];
        let chain = self.node.netns().command("iptables", &chain)?;
        for pod in pods {
            let address = format!(" {}/32 ", pod.addrs().v4);
            let jumps = |line: &str| line.contains(&address) && line.contains("KUBE-POD-FW-");
            ensure!(
                chain.lines().any(jumps),
                "kube-router did not take {} as a pod of its node:\n{chain}\n{}",
                pod.name(),
                self.last_words()
            );
        }
        Ok(())
    }

    /// The end of its log, for error messages.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().map(cut).collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for KubeRouter {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a log tells of rounds that all came to their end.
fn idle(log: &str) -> bool {
    let rounds = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    rounds(ENDS) > 0 && rounds(BEGINS) == rounds(ENDS)
}

/// The beginning of a line: some hold the whole table.
fn cut(line: &str) -> &str {
    line.char_indices()
        .nth(400)
        .map_or(line, |(end, _)| &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_log_tells_when_it_rests() {
        let begins = "I1123 14:00:00.0 1 npc.go:259] Starting sync of iptables with version: 1\n";
        let ends = "I1123 14:00:09.0 1 npc.go:256] sync iptables took 9.1s\n";
        assert!(!idle(""));
        assert!(!idle(begins));
        assert!(idle(&[begins, ends].concat()));
        assert!(!idle(&[begins, ends, begins].concat()));
    }

    #[test]
    fn another_program_is_refused_with_the_flag_and_the_remedy() {
        for path in ["/bin/true", "/nowhere/kube-router", "/etc/passwd"] {
            let error = format!("{:#}", Program::at(Path::new(path)).unwrap_err());
            assert!(
                error.starts_with(&format!("--kube-router {path}: not")),
                "{error}"
            );
            assert!(error.contains(RELEASES), "{error}");
        }
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"é".repeat(1_000)).chars().count(), 400);
    }
}
