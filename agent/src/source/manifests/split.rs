//! Splitting a stream of YAML documents.

/// A document of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Document<'a> {
    /// Its text, with its `---` line if it has one.
    pub text: &'a str,
    /// The number of lines before it.
    pub lines_before: u32,
    /// The line, counted from 1 in the whole stream, of its first content.
    pub line: u32,
}

/// The documents of a stream, without those that hold nothing but comments and directives.
///
/// A line that starts with `---` begins a document and one that starts with `...` ends one (YAML
/// 1.2.2 section 9.1); such a line is a marker even inside a block scalar. Splitting by hand keeps a
/// document that does not parse from hiding those after it.
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let mut start = Start::default();
    let mut offset = 0;
    for (line, raw) in (0..).zip(text.split_inclusive('\n')) {
        let begins = is_marker(raw, "---");
        if begins || is_marker(raw, "...") {
            start.finish(&text[start.offset..offset], &mut found);
            let skipped = if begins { 0 } else { raw.len() };
            start = Start {
                offset: offset + skipped,
                line: if begins { line } else { line + 1 },
            };
        }
        offset += raw.len();
    }
    start.finish(&text[start.offset..], &mut found);
    found
}

#[derive(Default)]
struct Start {
    offset: usize,
    line: u32,
}

impl Start {
    fn finish<'a>(&self, text: &'a str, found: &mut Vec<Document<'a>>) {
        let content = text.lines().position(has_content);
        if let Some(index) = content {
            found.push(Document {
                text,
                lines_before: self.line,
                line: self.line + index as u32 + 1,
            });
        }
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(line: &str) -> bool {
    if line.starts_with('%') {
        return false;
    }
    let rest = if is_marker(line, "---") {
        &line[3..]
    } else {
        line
    };
    let rest = rest.trim();
    !rest.is_empty() && !rest.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(&str, u32, u32)> {
        documents(text)
            .into_iter()
            .map(|document| (document.text, document.lines_before, document.line))
            .collect()
    }

    #[test]
    fn one_document_without_markers() {
        assert_eq!(split("a: 1\nb: 2\n"), [("a: 1\nb: 2\n", 0, 1)]);
    }

    #[test]
    fn documents_keep_their_line_numbers() {
        let text = "# head\na: 1\n---\n\n# about b\nb: 2\n--- # c\nc: 3";
        assert_eq!(
            split(text),
            [
                ("# head\na: 1\n", 0, 2),
                ("---\n\n# about b\nb: 2\n", 2, 6),
                ("--- # c\nc: 3", 6, 8),
            ]
        );
    }

    #[test]
    fn empty_documents_vanish() {
        assert_eq!(split(""), []);
        assert_eq!(split("---\n---\n# only a comment\n--- \n\n"), []);
        assert_eq!(split("%YAML 1.2\n---\na: 1\n"), [("---\na: 1\n", 1, 3)]);
    }

    #[test]
    fn content_may_stand_on_the_marker_line() {
        assert_eq!(split("--- {a: 1}\n"), [("--- {a: 1}\n", 0, 1)]);
    }

    #[test]
    fn an_end_marker_ends_a_document() {
        assert_eq!(
            split("a: 1\n...\nb: 2\n"),
            [("a: 1\n", 0, 1), ("b: 2\n", 2, 3)]
        );
    }

    #[test]
    fn dashes_elsewhere_are_content() {
        let text = "a: |\n  ---\n  x\n----\n- ---\n";
        assert_eq!(split(text), [(text, 0, 1)]);
    }

    #[test]
    fn windows_line_ends_and_byte_order_marks_are_accepted() {
        assert_eq!(
            split("\u{feff}a: 1\r\n---\r\nb: 2\r\n"),
            [("a: 1\r\n", 0, 1), ("---\r\nb: 2\r\n", 1, 3)]
        );
    }
}
