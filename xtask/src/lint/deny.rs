//! Reading `deny.toml`, as far as it is used: tables of strings and of lists of strings.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// The settings of a file, by `table.key`.
#[derive(Debug, Default)]
pub struct Rules {
    lists: BTreeMap<String, Vec<String>>,
}

impl Rules {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// A line is neither a table, a setting nor a comment; it is named by its number.
    pub fn parse(text: &str) -> Result<Self> {
        let mut rules = Self::default();
        let mut table = String::new();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let line = without_comment(line);
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                table = name.to_owned();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                bail!("deny.toml line {}: '{line}' is not a setting", number + 1);
            };
            let mut value = value.trim().to_owned();
            while value.starts_with('[') && !value.ends_with(']') {
                let (_, more) = lines.next().with_context(|| {
                    format!("deny.toml line {}: the list does not end", number + 1)
                })?;
                value.push_str(without_comment(more));
            }
            rules
                .lists
                .insert(format!("{table}.{}", key.trim()), strings(&value));
        }
        Ok(rules)
    }

    /// The strings of a setting; none if it is not set.
    pub fn list(&self, key: &str) -> &[String] {
        self.lists.get(key).map_or(&[], Vec::as_slice)
    }
}

/// A line without the comment at its end.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let end = line.find(|c| {
        quoted ^= c == '"';
        c == '#' && !quoted
    });
    line[..end.unwrap_or(line.len())].trim()
}

/// What stands between quotes.
fn strings(value: &str) -> Vec<String> {
    value
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_lists_and_comments_are_read() {
        let text =
            "# top\n[a]\nx = \"1\" # one\ny = [\n  \"p#q\", # why\n  \"r\",\n]\n[b]\nx = true\n";
        let rules = Rules::parse(text).unwrap();
        assert_eq!(rules.list("a.x"), ["1"]);
        assert_eq!(rules.list("a.y"), ["p#q", "r"]);
        assert!(rules.list("b.x").is_empty() && rules.list("c.x").is_empty());
    }

    #[test]
    fn broken_files_are_named_by_line() {
        let error = Rules::parse("[a]\n\nnonsense\n").unwrap_err().to_string();
        assert!(
            error.contains("line 3") && error.contains("nonsense"),
            "{error}"
        );
        let error = Rules::parse("[a]\nx = [\"1\",\n").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
