//! The conformance tests of network-policy-api against a cluster.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::{
    Extra, Proxy, Which, images, network, node, prepare,
    programs::{self, Programs},
    state::State,
    step,
};
use crate::process;

const MODULE: &str = "sigs.k8s.io/network-policy-api";
/// The test that runs all others; a second one beside it runs the same for a report.
const ROOT: &str = "TestConformance";

/// Options of `cargo xtask cluster conformance`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only tests whose name matches; a slash divides a test's name from its parts'.
    #[arg(long, value_name = "REGEX", default_value = "")]
    focus: String,
    /// No tests whose name matches.
    #[arg(long, value_name = "REGEX")]
    skip: Option<String>,
    /// The version of the API that is tested; each one unless said.
    #[arg(long, value_enum)]
    api: Option<Api>,
    /// Which cluster.
    #[command(flatten)]
    which: Which,
}

/// A version of the API: each has its tests in another release of the module.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Api {
    /// AdminNetworkPolicy and BaselineAdminNetworkPolicy.
    V1alpha1,
    /// ClusterNetworkPolicy.
    V1alpha2,
}

impl Api {
    fn release(self) -> &'static str {
        match self {
            Self::V1alpha1 => "0.1.7",
            Self::V1alpha2 => "0.2.0",
        }
    }

    /// Parts of tests that run by themselves, because the time limit of the whole test is too short for all its parts.
    fn apart(self) -> Option<&'static str> {
        match self {
            // 20 s for twelve attempts of which most wait their 3 s in vain.
            Self::V1alpha1 => Some("InlineCIDRPeers/allow-egress"),
            Self::V1alpha2 => None,
        }
    }

    /// A policy for no pod: once it is in force, so are policies of its kind.
    fn probe(self) -> (&'static str, &'static str) {
        match self {
            Self::V1alpha1 => (
                "anp",
                r#"apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: probe}
spec: {priority: 1000, subject: {namespaces: {matchLabels: {of: nobody}}}}
"#,
            ),
            Self::V1alpha2 => (
                "cnp",
                r#"apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: probe}
spec: {tier: Admin, priority: 1000, subject: {namespaces: {matchLabels: {of: nobody}}}}
"#,
            ),
        }
    }

    fn dir(self, programs: &Programs) -> PathBuf {
        let folder = format!("network-policy-api-{}", self.release());
        programs.cluster_dir().join(folder)
    }

    fn program(self, programs: &Programs) -> PathBuf {
        self.dir(programs).join("conformance.test")
    }

    /// The kinds' definitions, with all fields.
    fn definitions(self, programs: &Programs) -> PathBuf {
        self.dir(programs).join("crds.yaml")
    }
}

/// Builds what the tests consist of, if the cache lacks it.
pub fn build(programs: &Programs) -> Result<()> {
    for api in Api::value_variants() {
        let dir = api.dir(programs);
        programs.one(&dir, "conformance.test", |out| {
            let work = programs.work_dir(&format!("{MODULE}-{}", api.release()))?;
            let text = format!(
                "module build\ngo 1.26\nrequire {MODULE} v{}\n",
                api.release()
            );
            fs::write(work.join("go.mod"), text)?;
            let package = format!("{MODULE}/conformance");
            programs::go(&work, &["test", "-c"], out, &package)
        })?;
        programs.one(&dir, "crds.yaml", |out| {
            let source = programs::source(MODULE, api.release())?;
            write_definitions(&source.join("config/crd/experimental"), out)
        })?;
    }
    Ok(())
}

fn write_definitions(from: &Path, to: &Path) -> Result<()> {
    let mut text = String::new();
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains("policies") {
            text += "---\n";
            text += &fs::read_to_string(entry.path())?;
        }
    }
    fs::write(to, text)?;
    Ok(())
}

/// `cargo xtask cluster conformance`.
pub fn run(args: &Args) -> Result<()> {
    let state = State::load(&args.which.name)?;
    if state.proxy != Proxy::Sluice {
        bail!("nothing enforces policies on cluster {}", state.name);
    }
    let programs = prepare(Extra::None)?;
    build(&programs)?;
    for number in state.nodes() {
        node::import(&state, &programs, number, &images::ensure(&programs)?)?;
    }
    let mut failed = Vec::new();
    for api in Api::value_variants() {
        if args.api.is_none_or(|only| only.release() == api.release()) {
            let results = one(args, &state, &programs, *api)?;
            results.print(*api);
            failed.extend(results.failed);
        }
    }
    if !failed.is_empty() {
        bail!("{} conformance tests failed", failed.len());
    }
    Ok(())
}

fn one(args: &Args, state: &State, programs: &Programs, api: Api) -> Result<Results> {
    step::timed("kinds of policies", || install(state, programs, api))?;
    let log = state.dir(&format!("conformance-{}.log", api.release()));
    let out = fs::File::create(&log)?;
    eprintln!("the tests' whole output goes to {}", log.display());
    let mut ended = true;
    for (focus, skip) in runs(args, api) {
        step::timed("namespaces of an earlier run", || clear(state))?;
        let mut command = state.machine(network::CONTROL_PLANE)?.command("env");
        command
            .arg(format!("KUBECONFIG={}", state.kubeconfig.display()))
            .arg(api.program(programs))
            .args(["-all-features", "-test.v", "-test.timeout=2h"])
            .arg(format!("-test.run=^{ROOT}$/{focus}"));
        if let Some(skip) = skip {
            command.arg(format!("-test.skip=^{ROOT}$/{skip}"));
        }
        eprintln!("+ {}", process::describe(&command));
        let status = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out.try_clone()?)
            .status()
            .context("cannot start the conformance tests")?;
        ended &= status.success();
    }
    let results = Results::read(&fs::read_to_string(&log)?);
    if results.failed.is_empty() && (!ended || results.passed == 0) {
        bail!("the tests did not come to their end: see {}", log.display());
    }
    Ok(results)
}

/// Removes the tests' namespaces, and waits until they are gone: nothing can be made in one that ends.
fn clear(state: &State) -> Result<()> {
    let kubectl = |words: &[&str]| process::output(state.kubectl()?.args(words));
    let all = kubectl(&["get", "namespaces", "--output=name"])?;
    let ours: Vec<&str> = all
        .lines()
        .filter(|name| name.starts_with("namespace/network-policy-conformance-"))
        .collect();
    if ours.is_empty() {
        return Ok(());
    }
    let delete = ["delete", "--ignore-not-found", "--timeout=3m"];
    kubectl(&[&delete, ours.as_slice()].concat()).map(|_| ())
}

/// What each run of the program takes and leaves out.
fn runs(args: &Args, api: Api) -> Vec<(&str, Option<&str>)> {
    match api.apart() {
        Some(part) if args.focus.is_empty() && args.skip.is_none() => {
            vec![("", Some(part)), (part, None)]
        }
        _ => vec![(&args.focus, args.skip.as_deref())],
    }
}

/// Installs the kinds, and waits until the agents follow them.
fn install(state: &State, programs: &Programs, api: Api) -> Result<()> {
    let definitions = api.definitions(programs);
    let kubectl = |words: &[&str]| process::output(state.kubectl()?.args(words));
    let file = format!("--filename={}", definitions.display());
    kubectl(&["apply", "--server-side", &file])?;
    kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        &file,
    ])?;
    let (kind, probe) = api.probe();
    state.apply("probe", probe)?;
    let wait: Vec<&str> = "exec daemonset/sluice -- sluice policy wait probe --timeout=2m --kind"
        .split(' ')
        .collect();
    process::output(
        state
            .kubectl()?
            .arg("--namespace=kube-system")
            .args(wait)
            .arg(kind),
    )?;
    let file = format!("--filename={}", state.dir("probe.yaml").display());
    kubectl(&["delete", &file]).map(|_| ())
}

/// What became of the tests, by their names below [`ROOT`]; an empty name is the latter itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Results {
    passed: usize,
    skipped: Vec<String>,
    failed: Vec<String>,
}

impl Results {
    /// Of the text that `go test -v` writes: only tests that have no parts of their own count.
    fn read(text: &str) -> Self {
        let results: Vec<(&str, &str)> = text.lines().filter_map(result).collect();
        let mut all = Self::default();
        for (word, name) in &results {
            let parts = format!("{name}/");
            if results.iter().any(|(_, other)| other.starts_with(&parts)) {
                continue;
            }
            let name = name.trim_start_matches(ROOT).trim_start_matches('/');
            match *word {
                "PASS" => all.passed += 1,
                "SKIP" => all.skipped.push(name.into()),
                _ => all.failed.push(name.into()),
            }
        }
        all
    }

    fn print(&self, api: Api) {
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        println!(
            "network-policy-api {}: {} passed, {failed} failed, {skipped} skipped",
            api.release(),
            self.passed
        );
        for (word, names) in [("skipped", &self.skipped), ("failed", &self.failed)] {
            for name in names {
                println!("  {word}: {}", name.replace('_', " "));
            }
        }
    }
}

/// The word and the name of a line like `    --- PASS: TestConformance/Name (0.10s)`.
fn result(line: &str) -> Option<(&str, &str)> {
    let (word, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": ")?;
    let (name, _) = rest.rsplit_once(" (")?;
    Some((word, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_without_parts_count() {
        let text = "=== RUN   TestConformance/A
--- FAIL: TestConformance (10.00s)
    --- PASS: TestConformance/A (3.00s)
        --- PASS: TestConformance/A/allows_80_(TCP) (1.00s)
        --- PASS: TestConformance/A/denies_80 (2.00s)
    --- SKIP: TestConformance/B (0.00s)
    --- FAIL: TestConformance/C (7.00s)
        --- FAIL: TestConformance/C/denies (7.00s)
";
        let expected = Results {
            passed: 2,
            skipped: vec!["B".into()],
            failed: vec!["C/denies".into()],
        };
        assert_eq!(Results::read(text), expected);
    }

    #[test]
    fn what_has_one_time_limit_runs_apart_in_whole_runs_only() {
        let mut args = Args {
            focus: String::new(),
            skip: None,
            api: None,
            which: Which { name: "dev".into() },
        };
        let part = Api::V1alpha1.apart().unwrap();
        assert_eq!(runs(&args, Api::V1alpha1), [("", Some(part)), (part, None)]);
        assert_eq!(runs(&args, Api::V1alpha2), [("", None)]);
        args.focus = "Gress".into();
        assert_eq!(runs(&args, Api::V1alpha1), [("Gress", None)]);
    }
}
