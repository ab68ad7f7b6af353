//! What holds for every file of the repository.

use std::{fs, process::Command};

use anyhow::{Result, bail};

use crate::{process, workspace};

/// More lines do not fit a reader.
const MOST_LINES: usize = 500;

/// Marks of work that was put off. In two halves, so that this file does not contain them.
const MARKS: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("unimple", "mented!"),
    concat!("to", "do!"),
];

/// Checks the length of the Rust files and that nothing is marked as unfinished.
pub fn check() -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let names = process::output(&mut git)?;
    let mut faults = Vec::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        // What is no text, or was deleted but not yet committed, has no lines to look at.
        if let Ok(text) = fs::read_to_string(workspace::root().join(name)) {
            faults.extend(faults_of(name, &text));
        }
    }
    if !faults.is_empty() {
        bail!("{} faults in files:\n{}", faults.len(), faults.join("\n"));
    }
    Ok(())
}

fn faults_of(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if name.ends_with(".rs") && lines > MOST_LINES {
        faults.push(format!(
            "{name}: {lines} lines, {MOST_LINES} are the most: split it"
        ));
    }
    if name == "Cargo.lock" {
        return faults;
    }
    for (index, line) in text.lines().enumerate() {
        if let Some(mark) = MARKS.iter().find(|mark| has_word(line, mark)) {
            faults.push(format!("{name}:{}: {mark}", index + 1));
        }
    }
    faults
}

/// Whether a word stands in a line, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let goes_on = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let open_ended = word.ends_with(char::is_alphanumeric);
    line.match_indices(word).any(|(at, _)| {
        let part_of_longer = goes_on(line[..at].chars().next_back())
            || (open_ended && goes_on(line[at + word.len()..].chars().next()));
        !part_of_longer
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_marks_are_faults() {
        assert!(faults_of("a.rs", &"x\n".repeat(500)).is_empty());
        assert_eq!(
            faults_of("a.rs", &"x\n".repeat(501)),
            ["a.rs: 501 lines, 500 are the most: split it"]
        );
        assert!(faults_of("a.md", &"x\n".repeat(501)).is_empty());
        let mark = MARKS[0];
        assert_eq!(
            faults_of("a.md", &format!("x\n- {mark}: y\n")),
            [format!("a.md:2: {mark}")]
        );
    }

    #[test]
    fn marks_are_whole_words() {
        assert!(
            has_word("// ABC: later", "ABC")
                && has_word("ABC", "ABC")
                && has_word("(abc!())", "abc!")
        );
        assert!(
            !has_word("ABCD", "ABC")
                && !has_word("_ABC", "ABC")
                && !has_word("mktemp.ABCABC", "ABC")
        );
    }
}
