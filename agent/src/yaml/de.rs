//! Typed reading of a tree.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Content, Entry, Fault, Node};

/// What was read, and the paths of the fields that the type does not have.
#[derive(Debug)]
pub struct Read<T> {
    /// The value.
    pub value: T,
    /// Paths of unknown fields.
    pub unknown: Vec<String>,
}

impl Node {
    /// Reads the node as a `T`.
    ///
    /// # Errors
    ///
    /// The first fault, with its line and field.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Read<T>, Fault> {
        let unknown = RefCell::default();
        let value = T::deserialize(Reader {
            node: self,
            path: Path::Root,
            unknown: &unknown,
        })?;
        Ok(Read {
            value,
            unknown: unknown.into_inner(),
        })
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        // Words of the standard library, in those of people who write YAML.
        let message = message.replace("expected i64", "expected a whole number");
        super::fault(0, &message)
    }
}

#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'de, 'p> {
    node: &'de Node,
    path: Path<'p>,
    unknown: &'p RefCell<Vec<String>>,
}

/// A scalar's meaning by its text (YAML 1.2.2 section 10.3, the core schema).
enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

fn scalar(text: &str, plain: bool) -> Scalar<'_> {
    if !plain {
        return Scalar::Text(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        _ => {}
    }
    if let Ok(number) = text.parse() {
        return Scalar::Int(number);
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match text.parse() {
        Ok(number) if numeric => Scalar::Float(number),
        _ => Scalar::Text(text),
    }
}

impl<'de> Reader<'de, '_> {
    /// Adds line and path to a fault that has none yet.
    fn place<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| {
            if fault.line != 0 {
                return fault;
            }
            Fault {
                line: self.node.line,
                field: self.path.to_string(),
                ..fault
            }
        })
    }

    fn wrong<T>(&self, expected: &dyn de::Expected) -> Result<T, Fault> {
        let found = match &self.node.content {
            Content::Sequence(_) => Unexpected::Seq,
            Content::Mapping(_) => Unexpected::Map,
            Content::Scalar(text, plain) => match scalar(text, *plain) {
                Scalar::Null => Unexpected::Unit,
                Scalar::Bool(value) => Unexpected::Bool(value),
                Scalar::Int(value) => Unexpected::Signed(value),
                Scalar::Float(value) => Unexpected::Float(value),
                Scalar::Text(text) => Unexpected::Str(text),
            },
        };
        self.place(Err(de::Error::invalid_type(found, expected)))
    }

    fn items<V: Visitor<'de>>(self, items: &'de [Node], visitor: V) -> Result<V::Value, Fault> {
        let reader = self;
        self.place(visitor.visit_seq(Items {
            reader: &reader,
            items: items.iter().enumerate(),
        }))
    }

    fn entries<V: Visitor<'de>>(
        self,
        entries: &'de [Entry],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let reader = self;
        self.place(visitor.visit_map(Entries {
            reader: &reader,
            entries: entries.iter(),
            current: None,
        }))
    }
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.content {
            Content::Sequence(items) => self.items(items, visitor),
            Content::Mapping(entries) => self.entries(entries, visitor),
            Content::Scalar(text, plain) => self.place(match scalar(text, *plain) {
                Scalar::Null => visitor.visit_unit(),
                Scalar::Bool(value) => visitor.visit_bool(value),
                Scalar::Int(value) => visitor.visit_i64(value),
                Scalar::Float(value) => visitor.visit_f64(value),
                Scalar::Text(text) => visitor.visit_str(text),
            }),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.content {
            Content::Scalar(text, _) => self.place(visitor.visit_str(text)),
            _ => self.wrong(&visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.content {
            Content::Scalar(text, plain) if matches!(scalar(text, *plain), Scalar::Null) => {
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    /// A derived reader asks so for the values of fields that it does not have.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.unknown.borrow_mut().push(self.path.to_string());
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier
    }
}

struct Items<'de, 'p> {
    reader: &'p Reader<'de, 'p>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let child = Reader {
            node,
            path: Path::Item(&self.reader.path, index),
            unknown: self.reader.unknown,
        };
        child.place(seed.deserialize(child)).map(Some)
    }
}

struct Entries<'de, 'p> {
    reader: &'p Reader<'de, 'p>,
    entries: std::slice::Iter<'de, Entry>,
    current: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.current = self.entries.next();
        let Some(entry) = self.current else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|fault| Fault {
            line: entry.line,
            field: self.reader.path.to_string(),
            ..fault
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(entry) = self.current else {
            return Err(de::Error::custom("a value without a key"));
        };
        let child = Reader {
            node: &entry.value,
            path: Path::Field(&self.reader.path, &entry.key),
            unknown: self.reader.unknown,
        };
        child.place(seed.deserialize(child))
    }
}
