//! The tests that the guide to security names.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

const GUIDE: &str = "docs/guide/security.md";

/// Checks that every test which the guide names exists.
pub fn check() -> Result<()> {
    let guide = fs::read_to_string(workspace::root().join(GUIDE))
        .with_context(|| format!("cannot read {GUIDE}"))?;
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args([
        "grep",
        "--untracked",
        "-hoE",
        "fn [a-z0-9_]+",
        "--",
        "*.rs",
    ]);
    let functions = process::output(&mut git)?;
    let functions: BTreeSet<&str> = functions
        .lines()
        .filter_map(|line| line.strip_prefix("fn "))
        .collect();
    let missing: Vec<&str> = tests_of(&guide)
        .into_iter()
        .filter(|name| !functions.contains(name))
        .collect();
    if !missing.is_empty() {
        bail!(
            "{GUIDE} names tests that do not exist: {}",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Names of tests in the last column of the guide's tables.
fn tests_of(guide: &str) -> Vec<&str> {
    let rows = guide.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        match cells[..] {
            [_, _, tests] => Some(tests),
            _ => None,
        }
    });
    let quoted = rows.flat_map(|tests| tests.split('`').skip(1).step_by(2));
    quoted
        .filter(|word| word.contains('_') && !word.contains(char::is_uppercase))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tests_are_read_from_the_last_column() {
        let guide = "| cause | known as | tests |\n|---|---|---|\n\
            | a `b_c` | CVE | every test; `one_two`, `three_four` |\n| who | what | `CAP_BPF` |\n";
        assert_eq!(tests_of(guide), ["one_two", "three_four"]);
    }
}
