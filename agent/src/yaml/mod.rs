//! YAML documents (JSON too, which YAML 1.2 contains) as trees that know their lines, and typed
//! reading of them.
//!
//! One small deserializer over a tree, instead of the parser's own, gives errors the path of their
//! field, tells unknown fields, keeps text as it was written (a label `yes` or `010` stays that), and
//! keeps the compiler from instantiating a whole parser for each type.

mod de;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

pub use de::Read;

/// Nodes that the aliases of a document may stand for, all in all.
const ALIASED_NODES: usize = 1_000_000;
/// Levels of nesting.
const DEPTH: usize = 128;

/// What is wrong with a document.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {}{message}", if .field.is_empty() { String::new() } else { format!("{}: ", .field) })]
pub struct Fault {
    /// The line in the text that was parsed, counted from 1; 0 if it is not known.
    pub line: u32,
    /// The field's path, as in `spec.ports[0].port`; empty for the document itself.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// A node of a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its line, counted from 1.
    pub line: u32,
    content: Content,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    /// Text, and whether it was written without quotes, so that it may be a number or the like.
    Scalar(String, bool),
    Sequence(Arc<Vec<Node>>),
    Mapping(Arc<Vec<Entry>>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    key: String,
    line: u32,
    value: Node,
}

impl Node {
    /// Parses a text with one document.
    ///
    /// # Errors
    ///
    /// The text is not YAML, is empty, or has more than one document.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut builder = Builder {
            parser: Parser::new_from_str(text),
            anchors: HashMap::new(),
            aliased: 0,
        };
        builder.document()
    }

    /// The entries of a sequence field, if there is one of this name.
    pub fn items(&self, field: &str) -> &[Node] {
        match self.get(field).map(|node| &node.content) {
            Some(Content::Sequence(items)) => items,
            _ => &[],
        }
    }

    /// A field of a mapping.
    pub fn get(&self, field: &str) -> Option<&Node> {
        let Content::Mapping(entries) = &self.content else {
            return None;
        };
        let entry = entries.iter().find(|entry| entry.key == field);
        entry.map(|entry| &entry.value)
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::Scalar(..) => 1,
            Content::Sequence(items) => 1 + items.iter().map(Node::size).sum::<usize>(),
            Content::Mapping(entries) => {
                1 + entries
                    .iter()
                    .map(|entry| entry.value.size())
                    .sum::<usize>()
            }
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Node, Fault> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                _ if root.is_some() => {
                    return Err(fault(
                        line(&span),
                        "a second document: separate documents with `---`",
                    ));
                }
                event => root = Some(self.node(event, &span, 0)?),
            }
        }
        root.ok_or_else(|| fault(1, "empty"))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..) | Event::Nothing, _))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => return Err(scan_fault(&error)),
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Fault> {
        let line = line(span);
        if depth > DEPTH {
            return Err(fault(line, "nested too deeply"));
        }
        let (content, anchor) = match event {
            Event::Alias(id) => return self.alias(id, line),
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let plain = matches!(style, ScalarStyle::Plain) && !is_text;
                (Content::Scalar(text.into_owned(), plain), anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(depth)?, anchor),
            _ => return Err(fault(line, "something else than a value")),
        };
        let node = Node { line, content };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, line: u32) -> Result<Node, Fault> {
        let anchored = self.anchors.get(&id);
        let node = anchored.ok_or_else(|| fault(line, "an alias of something that contains it"))?;
        self.aliased = self.aliased.saturating_add(node.size());
        if self.aliased > ALIASED_NODES {
            return Err(fault(line, "the aliases stand for too much"));
        }
        Ok(Node {
            line,
            content: node.content.clone(),
        })
    }

    fn sequence(&mut self, depth: usize) -> Result<Content, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Content::Sequence(Arc::new(items))),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Content, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut keys = BTreeSet::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.node(event, &span, depth + 1)?;
            let Content::Scalar(text, plain) = key.content else {
                return Err(fault(key.line, "a key that is not text"));
            };
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1)?;
            if plain && text == "<<" {
                merged.push(value);
                continue;
            }
            if !keys.insert(text.clone()) {
                return Err(fault(key.line, &format!("the key {text:?} is given twice")));
            }
            entries.push(Entry {
                key: text,
                line: key.line,
                value,
            });
        }
        for node in merged {
            merge(&node, &mut entries, &mut keys)?;
        }
        Ok(Content::Mapping(Arc::new(entries)))
    }
}

/// Adds what `<<` names, but for keys that are there already.
fn merge(node: &Node, entries: &mut Vec<Entry>, keys: &mut BTreeSet<String>) -> Result<(), Fault> {
    match &node.content {
        Content::Mapping(others) => {
            for entry in others.iter() {
                if keys.insert(entry.key.clone()) {
                    entries.push(entry.clone());
                }
            }
            Ok(())
        }
        Content::Sequence(items) => items.iter().try_for_each(|item| merge(item, entries, keys)),
        Content::Scalar(..) => Err(fault(node.line, "`<<` needs a mapping")),
    }
}

fn line(span: &Span) -> u32 {
    u32::try_from(span.start.line()).unwrap_or(u32::MAX)
}

fn scan_fault(error: &ScanError) -> Fault {
    let line = u32::try_from(error.marker().line()).unwrap_or(u32::MAX);
    fault(line, &format!("not YAML: {}", error.info()))
}

fn fault(line: u32, message: &str) -> Fault {
    Fault {
        line,
        field: String::new(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
