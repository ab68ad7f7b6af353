//! Typed reading of one document: unknown fields, and faults with their line and field.

use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;

/// A document, or an item of a list.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// YAML text.
    Yaml(&'a str),
    /// JSON text.
    Json(&'a str),
    /// An item of a list, already read.
    Item(&'a Value),
}

/// What was read, and the paths of the fields that the type does not have.
#[derive(Debug)]
pub struct Read<T> {
    /// The value.
    pub value: T,
    /// Paths of unknown fields.
    pub unknown: Vec<String>,
}

/// Why a document is not of a type.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The line in the document, counted from 1; 0 if it is not known.
    pub line: u32,
    /// The field's path; empty if it is not known.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl Input<'_> {
    /// Reads the document as a `T`.
    ///
    /// # Errors
    ///
    /// The first fault, with its line and field as far as they are known.
    pub fn read<T: DeserializeOwned>(self) -> Result<Read<T>, Fault> {
        let mut notes = Notes::default();
        let read = match self {
            Input::Yaml(text) => {
                serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
                    notes.read(yaml)
                })
                .map_err(|error| fault_of(&error.to_string()))
            }
            Input::Json(text) => {
                let mut json = serde_json::Deserializer::from_str(text);
                notes
                    .read(&mut json)
                    .and_then(|value| json.end().map(|()| value))
                    .map_err(|error| fault_of(&error.to_string()))
            }
            Input::Item(value) => notes
                .read(value)
                .map_err(|error: serde_json::Error| fault_of(&error.to_string())),
        };
        match read {
            Ok(value) => Ok(Read {
                value,
                unknown: notes.unknown,
            }),
            Err(fault) => Err(Fault {
                field: notes.path,
                ..fault
            }),
        }
    }
}

/// Options for folders that are trusted: no budget on size, and `yes` is a word, not a truth value.
pub fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { budget: None, with_snippet: false, strict_booleans: true }
}

#[derive(Default)]
struct Notes {
    unknown: Vec<String>,
    path: String,
}

impl Notes {
    fn read<'de, T, D>(&mut self, input: D) -> Result<T, D::Error>
    where
        T: DeserializeOwned,
        D: Deserializer<'de>,
    {
        let mut track = serde_path_to_error::Track::new();
        let unknown = &mut self.unknown;
        let mut note = |path: serde_ignored::Path<'_>| unknown.push(unknown_path(&path));
        let tracked = serde_path_to_error::Deserializer::new(input, &mut track);
        let read = T::deserialize(serde_ignored::Deserializer::new(tracked, &mut note));
        if read.is_err() {
            self.path = error_path(&track.path().to_string());
        }
        read
    }
}

/// A fault from a message that may end in ` at line 3, column 4`: places are told once, and for the
/// whole file.
fn fault_of(message: &str) -> Fault {
    let (text, place) = message.split_once(" at line ").unwrap_or((message, ""));
    let line = place.split(|c: char| !c.is_ascii_digit()).next();
    Fault {
        line: line.and_then(|digits| digits.parse().ok()).unwrap_or(0),
        field: String::new(),
        message: plain(text),
    }
}

/// Messages of the YAML reader that speak to programmers, in other words.
fn plain(text: &str) -> String {
    match text
        .strip_prefix("duplicate mapping key: ")
        .and_then(|rest| rest.split_once(", set "))
    {
        Some((key, _)) => format!("the key {key:?} is given twice"),
        None if text == "invalid i64" => "not a whole number".to_owned(),
        None => text.to_owned(),
    }
}

fn error_path(path: &str) -> String {
    let path = path.trim_end_matches(".?");
    if path == "." || path == "?" {
        String::new()
    } else {
        path.to_owned()
    }
}

fn unknown_path(path: &serde_ignored::Path<'_>) -> String {
    let mut text = String::new();
    for part in path.to_string().split('.').filter(|part| *part != "?") {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            text.push_str(&format!("[{part}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::source::core::Service;

    use super::*;

    fn fault(text: &str) -> (u32, String, String) {
        let fault = Input::Yaml(text)
            .read::<Service>()
            .expect_err("a bad document");
        (fault.line, fault.field, fault.message)
    }

    const HEAD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n";

    #[test]
    fn unknown_fields_are_named() {
        let text = format!("{HEAD}spec:\n  portz: 3\n  ports:\n  - port: 80\n    foo: 1\n");
        let read = Input::Yaml(&text).read::<Service>().expect("a Service");
        assert_eq!(read.unknown, ["spec.portz", "spec.ports[0].foo"]);
    }

    #[test]
    fn faults_have_line_and_field() {
        let (line, field, _) = fault(&format!("{HEAD}spec:\n  ports:\n  - port: eighty\n"));
        assert_eq!((line, field.as_str()), (6, "spec.ports[0].port"));
        let (line, field, _) = fault(&format!("{HEAD}spec:\n  ports: 3\n"));
        assert_eq!((line, field.as_str()), (5, "spec.ports"));
    }

    #[test]
    fn a_key_given_twice_is_a_fault() {
        let (line, _, message) = fault("apiVersion: v1\nkind: Service\nkind: Service\n");
        assert_eq!(line, 3);
        assert_eq!(message, "the key \"kind\" is given twice");
    }

    #[test]
    fn broken_syntax_is_a_fault_with_a_line() {
        let (line, ..) = fault("apiVersion: v1\nmetadata: [x\nkind: }\n");
        assert!(line >= 2, "line {line}");
    }

    #[test]
    fn labels_stay_text() {
        let text = "apiVersion: v1\nkind: Service\nmetadata:\n  labels: {a: yes, b: 010}\n";
        let read = Input::Yaml(text).read::<Service>().expect("a Service");
        let labels = read.value.metadata.labels;
        assert_eq!((labels["a"].as_str(), labels["b"].as_str()), ("yes", "010"));
    }

    #[test]
    fn json_has_places_too() {
        let fault = Input::Json("{\"apiVersion\": \"v1\",\n\"spec\": {\"ports\": 3}}")
            .read::<Service>()
            .expect_err("a bad document");
        assert_eq!((fault.line, fault.field.as_str()), (2, "spec.ports"));
    }
}
