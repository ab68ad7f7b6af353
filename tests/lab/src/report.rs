//! What was expected and what was measured, as a table, as JSON and as Markdown.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A measured value.
#[derive(Clone, Debug, PartialEq)]
pub enum Figure {
    /// A number of the row's unit.
    Number(f64),
    /// Something that is no number.
    Text(String),
}

impl From<f64> for Figure {
    fn from(number: f64) -> Figure {
        Figure::Number(number)
    }
}

impl From<u64> for Figure {
    fn from(number: u64) -> Figure {
        Figure::Number(number as f64)
    }
}

impl From<&str> for Figure {
    fn from(text: &str) -> Figure {
        Figure::Text(text.to_owned())
    }
}

impl From<String> for Figure {
    fn from(text: String) -> Figure {
        Figure::Text(text)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figure::Text(text) => f.pad(text),
            Figure::Number(number) if number.fract() == 0.0 => f.pad(&format!("{number:.0}")),
            Figure::Number(number) if number.abs() < 10.0 => f.pad(&format!("{number:.3}")),
            Figure::Number(number) => f.pad(&format!("{number:.1}")),
        }
    }
}

/// One promise.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was tried.
    pub name: String,
    /// What should come out.
    pub expected: String,
    /// What came out.
    pub measured: Figure,
    /// The unit of the measured number; empty where there is none.
    pub unit: String,
    /// Whether the promise holds.
    pub ok: bool,
}

/// All rows of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a row.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The rows so far.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether every promise holds.
    pub fn ok(&self) -> bool {
        self.rows.iter().all(|row| row.ok)
    }

    /// `{"rows":[{"name","expected","measured","unit","ok"}]}`.
    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let measured = match &row.measured {
                Figure::Number(number) => json!(number),
                Figure::Text(text) => json!(text),
            };
            json!({
                "name": row.name,
                "expected": row.expected,
                "measured": measured,
                "unit": row.unit,
                "ok": row.ok,
            })
        });
        json!({ "rows": rows.collect::<Vec<_>>() })
    }

    /// Writes the JSON form to a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_json(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.to_json())? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The rows as a Markdown table; a promise that does not hold is marked.
    pub fn to_markdown(&self) -> String {
        let mut text = "| | expected | measured |\n|---|---|---|\n".to_owned();
        for row in &self.rows {
            let mark = if row.ok { "" } else { " **(not met)**" };
            let measured = row.measured_with_unit();
            text += &format!("| {} | {} | {measured}{mark} |\n", row.name, row.expected);
        }
        text
    }
}

/// Puts a table into a document, between the lines `<!-- NAME -->` and `<!-- end NAME -->`.
///
/// # Errors
/// The file cannot be read or written, or does not have the two lines.
pub fn splice(file: &Path, name: &str, table: &str) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let spliced = spliced(&text, name, table)
        .with_context(|| format!("{} has no place for {name:?}", file.display()))?;
    fs::write(file, spliced).with_context(|| format!("cannot write {}", file.display()))
}

fn spliced(text: &str, name: &str, table: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end {name} -->"));
    let (before, rest) = text
        .split_once(&begin)
        .with_context(|| format!("the line {:?} is missing", begin.trim()))?;
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("the line {end:?} is missing"))?;
    Ok(format!(
        "{before}{begin}\n{}\n\n{end}{after}",
        table.trim_end()
    ))
}

impl Row {
    fn measured_with_unit(&self) -> String {
        format!("{} {}", self.measured, self.unit)
            .trim_end()
            .to_owned()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells: Vec<[String; 3]> = self
            .rows
            .iter()
            .map(|row| {
                [
                    row.name.clone(),
                    row.expected.clone(),
                    row.measured_with_unit(),
                ]
            })
            .collect();
        let heads = ["promise", "expected", "measured"];
        let widths = [0, 1, 2].map(|column: usize| {
            let longest = cells.iter().map(|row| row[column].chars().count()).max();
            longest.unwrap_or(0).max(heads[column].len())
        });
        let [a, b, c] = widths;
        writeln!(f, "      {:a$}  {:b$}  {:c$}", heads[0], heads[1], heads[2])?;
        for (row, [name, expected, measured]) in self.rows.iter().zip(&cells) {
            let mark = if row.ok { "ok  " } else { "FAIL" };
            writeln!(
                f,
                "{mark}  {name:a$}  {expected:b$}  {}",
                measured.trim_end()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        let row = |name: &str, measured: Figure, ok| Row {
            name: name.into(),
            expected: "≤ 50".into(),
            measured,
            unit: "ms".into(),
            ok,
        };
        report.push(row("a flip", 12.34.into(), true));
        report.push(row("a longer name", 51u64.into(), false));
        report
    }

    #[test]
    fn one_broken_promise_is_enough() {
        assert!(!report().ok());
        assert!(Report::default().ok());
    }

    #[test]
    fn the_json_has_the_agreed_shape() {
        let expected = json!({"rows": [
            {"name": "a flip", "expected": "≤ 50", "measured": 12.34, "unit": "ms", "ok": true},
            {"name": "a longer name", "expected": "≤ 50", "measured": 51.0, "unit": "ms", "ok": false},
        ]});
        assert_eq!(report().to_json(), expected);
    }

    #[test]
    fn a_table_takes_its_place_in_a_document() {
        let text = "a\n<!-- demo -->\nold\n<!-- end demo -->\nb\n";
        let expected = "a\n<!-- demo -->\n\n| x |\n\n<!-- end demo -->\nb\n";
        assert_eq!(spliced(text, "demo", "| x |\n").unwrap(), expected);
        assert_eq!(spliced(expected, "demo", "| x |").unwrap(), expected);
        assert!(spliced(text, "bench", "").is_err());
    }

    #[test]
    fn columns_are_aligned() {
        let text = report().to_string();
        let lines: Vec<&str> = text.lines().collect();
        let at = |line: &str| line.chars().take_while(|c| *c != '≤').count();
        assert_eq!(at(lines[1]), at(lines[2]));
        assert!(lines[1].starts_with("ok    a flip") && lines[1].ends_with("12.3 ms"));
        assert!(lines[2].starts_with("FAIL  a longer name") && lines[2].ends_with("51 ms"));
    }
}
