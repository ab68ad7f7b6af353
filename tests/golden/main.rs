//! Folders of manifests, and the maps that must come of them.
//!
//! Each folder beside this file is a case: its manifests are compiled for the node `node-a`, and the
//! sorted tables are compared with its `expected.txt`. `SLUICE_UPDATE_GOLDEN=1` writes what came out
//! instead; look at the difference before you commit it.

use std::fs;
use std::path::{Path, PathBuf};

const NODE: &str = "node-a";
const UPDATE: &str = "SLUICE_UPDATE_GOLDEN";

#[test]
fn cluster_ip() {
    check("cluster-ip");
}

#[test]
fn node_port() {
    check("node-port");
}

#[test]
fn policy() {
    check("policy");
}

#[test]
fn tiers() {
    check("tiers");
}

#[test]
fn canary() {
    check("canary");
}

#[test]
fn blue_green() {
    check("blue-green");
}

/// Every folder is a case that one of the tests above runs.
#[test]
fn no_case_is_forgotten() {
    let source = include_str!("main.rs");
    let entries = fs::read_dir(root()).expect("the folder of cases");
    for entry in entries.map(|entry| entry.expect("an entry")) {
        if entry.path().is_dir() {
            let call = format!("check({:?})", entry.file_name());
            assert!(source.contains(&call), "no test calls {call}");
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn check(case: &str) {
    let folder = root().join(case);
    let found = dump(&folder);
    let path = folder.join("expected.txt");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &found).expect("written");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if found != expected {
        panic!(
            "{case}: the maps differ from {}; {UPDATE}=1 takes what came out\n{}",
            path.display(),
            difference(&expected, &found)
        );
    }
}

/// The dump, with paths relative to the case's folder.
fn dump(folder: &Path) -> String {
    let lines = sluice::cli::dump::compile_folder(folder, NODE, &[]).expect("a dump");
    let prefix = format!("{}/", folder.display());
    let mut text = lines.join("\n").replace(&prefix, "");
    text.push('\n');
    text
}

/// Lines of one side only.
fn difference(expected: &str, found: &str) -> String {
    let only = |here: &str, there: &str, sign: char| {
        let there: Vec<&str> = there.lines().collect();
        let lines = here.lines().filter(|line| !there.contains(line));
        lines
            .map(|line| format!("{sign} {line}\n"))
            .collect::<String>()
    };
    only(expected, found, '-') + &only(found, expected, '+')
}
