//! Running the tests of every level.

mod level;
mod summary;

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    build::{self, Built, Profile},
    cluster::{self, Extra, ForTests, Programs},
    guest,
    privilege::Privilege,
    process,
    setup::{self, Part},
    workspace,
};
use level::Level;
use summary::Summary;

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this level.
    #[arg(long)]
    only: Option<Level>,
    /// More cases and longer runs.
    #[arg(long)]
    long: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// `cargo xtask test`.
pub fn run(args: &Args) -> Result<()> {
    let levels: Vec<Level> = match args.only {
        Some(level) => vec![level],
        // A filter picks property tests of the unit level too.
        None if args.filter.is_some() => Level::ALL
            .into_iter()
            .filter(|level| *level != Level::Property)
            .collect(),
        None => Level::ALL.to_vec(),
    };
    let levels = without_guest(levels);
    let plan = Plan::make(&levels)?;
    let mut total = Summary::default();
    let mut empty = Vec::new();
    for level in levels {
        let summary = plan.run(level, args)?;
        eprintln!("level {}: {summary}", level.name());
        if summary.ran() == 0 {
            empty.push(level.name());
        }
        total += summary;
    }
    report(&total, &empty, args.filter.as_deref())
}

/// The levels that this machine can run, if it may choose.
fn without_guest(mut levels: Vec<Level>) -> Vec<Level> {
    if levels.len() > 1 && !guest::is_possible() {
        eprintln!("level guest is left out: it is made of Debian's packages for amd64");
        levels.retain(|level| *level != Level::Guest);
    }
    levels
}

/// Says the result; its last line is the count.
fn report(total: &Summary, empty: &[&str], filter: Option<&str>) -> Result<()> {
    let mut problems = Vec::new();
    if total.ignored > 0 {
        problems.push(format!(
            "{} tests were skipped, and none may be",
            total.ignored
        ));
    }
    match filter {
        None if !empty.is_empty() => {
            problems.push(format!("no test ran in level {}", empty.join(", ")))
        }
        Some(filter) if total.ran() == 0 => {
            problems.push(format!("no test has '{filter}' in its name"))
        }
        _ => {}
    }
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 || !problems.is_empty() {
        std::process::exit(1);
    }
    Ok(())
}

/// What the levels run with.
struct Plan {
    built: Option<Built>,
    privilege: Privilege,
    host: String,
    targets: Vec<Target>,
}

/// A test target of the workspace.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    package: String,
    name: String,
}

impl Plan {
    /// Prepares the machine and builds what the levels need, before the first of them starts.
    fn make(levels: &[Level]) -> Result<Self> {
        let built = if levels.iter().any(|level| level.needs_kernel()) {
            setup::ensure(&[Part::Kernel, Part::Programs, Part::Bpf])?;
            if levels.contains(&Level::Cluster) {
                cluster::prepare(Extra::None)?;
            }
            if levels.contains(&Level::Guest) {
                guest::prepare()?;
            }
            Some(build::all(Profile::Dev)?)
        } else {
            None
        };
        Ok(Self {
            built,
            privilege: Privilege::find(),
            host: workspace::host()?,
            targets: targets(&workspace::metadata(&["--no-deps"])?),
        })
    }

    fn run(&self, level: Level, args: &Args) -> Result<Summary> {
        if level != Level::Cluster {
            return self.run_on(level, None, args);
        }
        let cluster = ForTests::start()?;
        let summary = self.run_on(level, Some(&cluster), args);
        cluster.stop(summary.as_ref().map_or(true, |summary| summary.failed > 0))?;
        summary
    }

    fn run_on(&self, level: Level, cluster: Option<&ForTests>, args: &Args) -> Result<Summary> {
        let mut summary = Summary::default();
        for mut command in self.commands(level, cluster, args)? {
            if args.long {
                command
                    .env("PROPTEST_CASES", "4096")
                    .env("SLUICE_LONG", "1");
            }
            summary += cargo_test(&mut command)?;
        }
        Ok(summary)
    }

    /// The calls of cargo that make up a level.
    fn commands(
        &self,
        level: Level,
        cluster: Option<&ForTests>,
        args: &Args,
    ) -> Result<Vec<Command>> {
        let filter = args.filter.as_deref();
        let Some(built) = self.built.as_ref().filter(|_| level.needs_kernel()) else {
            let mut code = cargo();
            // With a filter, one call covers both levels of the host.
            if level == Level::Unit {
                code.args(["--lib", "--bins"]);
            }
            if level == Level::Property || filter.is_some() {
                code.args(["--test", Level::Property.name()]);
            }
            code.arg("--").args(level.selection(filter));
            let mut commands = vec![code];
            if level == Level::Unit {
                let mut documents = cargo();
                documents
                    .args(["--doc", "--"])
                    .args(level.selection(filter));
                commands.push(documents);
            }
            return Ok(commands);
        };
        let is_there =
            |target: &Target| target.package == level::PACKAGE && target.name == level.target();
        if !self.targets.iter().any(is_there) {
            eprintln!(
                "package {} has no test target '{}'",
                level::PACKAGE,
                level.target()
            );
            return Ok(vec![]);
        }
        let mut command = cargo();
        let runner = if level == Level::Guest {
            self.runner_of(&guest::runner(&built.variables())?)?
        } else {
            self.runner(built, cluster, args)?
        };
        command.args(["--test", level.target(), "--config", &runner]);
        command.arg("--").args(level.selection(filter));
        Ok(vec![command])
    }

    /// A setting of cargo by which test programs, and only they, run as root and with the variables: were the variables set for
    /// cargo itself, build scripts would see them and run again.
    fn runner(&self, built: &Built, cluster: Option<&ForTests>, args: &Args) -> Result<String> {
        let mut variables = built.variables().to_vec();
        if let Some(cluster) = cluster {
            variables.push(("SLUICE_CLUSTER", cluster.file().into()));
            variables.extend(cluster::variables(&Programs::find()?));
        }
        for name in ["PATH", "RUST_BACKTRACE", "RUST_LOG"] {
            variables.extend(std::env::var_os(name).map(|value| (name, value)));
        }
        if args.long {
            variables.push(("SLUICE_LONG", "1".into()));
        }
        self.runner_of(&self.privilege.prefix(variables)?)
    }

    fn runner_of(&self, words: &[OsString]) -> Result<String> {
        Ok(format!(
            "target.{}.runner={}",
            self.host,
            toml_strings(words)?
        ))
    }
}

fn cargo() -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    command
}

/// Runs cargo, passing its output on, and sums what the test programs report.
fn cargo_test(command: &mut Command) -> Result<Summary> {
    eprintln!("+ {}", process::describe(command));
    let mut child = command
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start cargo")?;
    let stdout = child
        .stdout
        .take()
        .context("cargo has no standard output")?;
    let mut summary = Summary::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read what the tests say")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        summary += Summary::of_line(&line).unwrap_or_default();
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() && summary.failed == 0 {
        // It did not compile, or a test program died before it could count.
        eprintln!("error: cargo test failed without naming a test: counted as one failure");
        summary.failed = 1;
    }
    Ok(summary)
}

/// The test targets in what `cargo metadata` says.
fn targets(metadata: &Value) -> Vec<Target> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]) {
            if list(&target["kind"]).iter().any(|kind| kind == "test") {
                found.push(Target {
                    package: text(&package["name"]),
                    name: text(&target["name"]),
                });
            }
        }
    }
    found
}

/// A TOML array of strings. JSON's strings are TOML's.
fn toml_strings(words: &[OsString]) -> Result<String> {
    let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    let words =
        words.context("a path or variable is not UTF-8, which cargo's settings cannot hold")?;
    Ok(serde_json::to_string(&words)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_targets_are_read_from_the_metadata() {
        let metadata = serde_json::json!({"packages": [
            {"name": "sluice-tests", "targets": [{"kind": ["lib"], "name": "sluice_tests"}, {"kind": ["test"], "name": "packet"}]},
            {"name": "sluice", "targets": [{"kind": ["bin"], "name": "sluice"}]},
        ]});
        assert_eq!(
            targets(&metadata),
            [Target {
                package: "sluice-tests".into(),
                name: "packet".into()
            }]
        );
    }

    #[test]
    fn the_runner_is_toml() {
        let words = ["env", "PATH=/a b:/c", "X=\"q\""].map(OsString::from);
        assert_eq!(
            toml_strings(&words).unwrap(),
            r#"["env","PATH=/a b:/c","X=\"q\""]"#
        );
    }
}
