//! From documents to objects.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::split;
use crate::source::{Kind, Object, ObjectKey, closed};
use crate::yaml::{Fault, Node, Read};

/// What a document is.
#[derive(Clone, PartialEq, Debug)]
pub struct Decoded {
    /// The line of the file where it begins, or where it is wrong.
    pub line: u32,
    /// What it holds.
    pub content: Content,
}

/// What a document holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    /// An object, and the paths of its unknown fields.
    Object(Object, Vec<String>),
    /// An object of a kind the agent has no use for, as `apiVersion/kind`.
    Skipped(String),
    /// Nothing that can be used.
    Bad(Bad),
}

/// A document that cannot be used.
#[derive(Clone, PartialEq, Debug)]
pub struct Bad {
    /// The object, where it could be made out.
    pub key: Option<ObjectKey>,
    /// The field's path; empty if it is not known.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// For a policy: what stands in for it. A policy that cannot be read never means that there is none.
    pub closed: Option<Object>,
}

/// The objects of a YAML stream; a JSON file is one with one document.
pub fn decode(text: &str) -> Vec<Decoded> {
    let mut found = Vec::new();
    for document in split::documents(text) {
        let place = Place {
            lines_before: document.lines_before,
            prefix: String::new(),
        };
        match Node::parse(document.text) {
            Ok(node) => decode_node(&node, document.line, &place, &mut found),
            Err(fault) => found.push(place.bad(None, &fault)),
        }
    }
    found
}

/// Where a document stands in its file.
struct Place {
    lines_before: u32,
    /// Prefix for paths of fields: `items[3]` for an item of a list.
    prefix: String,
}

impl Place {
    fn path(&self, field: &str) -> String {
        match (self.prefix.is_empty(), field.is_empty()) {
            (true, _) => field.to_owned(),
            (false, true) => self.prefix.clone(),
            (false, false) => format!("{}.{field}", self.prefix),
        }
    }

    fn bad(&self, key: Option<ObjectKey>, fault: &Fault) -> Decoded {
        Decoded {
            line: self.lines_before + fault.line,
            content: Content::Bad(Bad {
                key,
                field: self.path(&fault.field),
                message: fault.message.clone(),
                closed: None,
            }),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    api_version: String,
    kind: String,
    metadata: Option<HeadMeta>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HeadMeta {
    name: Option<String>,
    namespace: Option<String>,
    generate_name: Option<String>,
}

fn decode_node(node: &Node, line: u32, place: &Place, found: &mut Vec<Decoded>) {
    let head = match node.read::<Head>() {
        Ok(read) => read.value,
        Err(fault) => return found.push(place.bad(None, &fault)),
    };
    if head.kind.is_empty() || head.api_version.is_empty() {
        let missing = if head.kind.is_empty() {
            "kind"
        } else {
            "apiVersion"
        };
        let remedy =
            "missing: say what object this is, for example `apiVersion: v1` and `kind: Service`";
        return found.push(place.bad(None, &fault(node, missing, remedy)));
    }
    let (group, version) = head
        .api_version
        .rsplit_once('/')
        .unwrap_or(("", &head.api_version));
    if group.is_empty() && head.kind == "List" {
        for (index, item) in node.items("items").iter().enumerate() {
            let place = Place {
                lines_before: place.lines_before,
                prefix: place.path(&format!("items[{index}]")),
            };
            decode_node(item, place.lines_before + item.line, &place, found);
        }
        return;
    }
    found.push(match Kind::find(group, &head.kind) {
        Some(kind) => decode_object(node, kind, version, &head, line, place),
        None => Decoded {
            line,
            content: Content::Skipped(format!("{}/{}", head.api_version, head.kind)),
        },
    });
}

fn decode_object(
    node: &Node,
    kind: Kind,
    version: &str,
    head: &Head,
    line: u32,
    place: &Place,
) -> Decoded {
    let key = match object_key(node, kind, head) {
        Ok(key) => key,
        Err(fault) => return place.bad(None, &fault),
    };
    let read = if kind.api().1.contains(&version) {
        read_object(node, kind)
    } else {
        let wanted = kind.api_version();
        let given = &head.api_version;
        let remedy =
            format!("{given} is not a version of {kind} that is understood: write {wanted}");
        Err(fault(node, "apiVersion", &remedy))
    };
    match read {
        Ok((object, unknown)) => Decoded {
            line,
            content: Content::Object(
                object,
                unknown.iter().map(|path| place.path(path)).collect(),
            ),
        },
        Err(fault) => {
            let mut decoded = place.bad(Some(key.clone()), &fault);
            if let Content::Bad(bad) = &mut decoded.content
                && kind.is_policy()
            {
                let part = |name| {
                    let part = node.get(name).map(Node::read::<serde_json::Value>);
                    let part = part.and_then(Result::ok).map(|read| read.value);
                    part.unwrap_or_default()
                };
                bad.closed = closed::policy(&key, &part("metadata"), part("spec"));
            }
            decoded
        }
    }
}

fn object_key(node: &Node, kind: Kind, head: &Head) -> Result<ObjectKey, Fault> {
    let none = HeadMeta::default();
    let meta = head.metadata.as_ref().unwrap_or(&none);
    let name = match meta.name.as_deref() {
        Some(name) if !name.is_empty() => name,
        _ if meta.generate_name.is_some() => {
            let remedy = "only the API server makes names: give metadata.name";
            return Err(fault(node, "metadata.generateName", remedy));
        }
        _ => {
            return Err(fault(
                node,
                "metadata.name",
                "missing: every object needs a name",
            ));
        }
    };
    for (field, name) in [
        ("metadata.name", Some(name)),
        ("metadata.namespace", meta.namespace.as_deref()),
    ] {
        if let Some(name) = name.filter(|name| !is_name(name)) {
            let remedy =
                format!("{name:?} is not a name: use at most 253 of a-z, 0-9, '-' and '.'");
            return Err(fault(node, field, &remedy));
        }
    }
    Ok(ObjectKey::new(kind, meta.namespace.as_deref(), name))
}

fn is_name(name: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    name.len() <= 253 && name.bytes().all(allowed)
}

fn read_object(node: &Node, kind: Kind) -> Result<(Object, Vec<String>), Fault> {
    fn one<T: DeserializeOwned>(
        node: &Node,
        wrap: impl FnOnce(Box<T>) -> Object,
    ) -> Result<(Object, Vec<String>), Fault> {
        let Read { value, unknown } = node.read::<T>()?;
        Ok((wrap(Box::new(value)), unknown))
    }
    match kind {
        Kind::Namespace => one(node, Object::Namespace),
        Kind::Node => one(node, Object::Node),
        Kind::Pod => one(node, Object::Pod),
        Kind::Service => one(node, Object::Service),
        Kind::EndpointSlice => one(node, Object::EndpointSlice),
        Kind::NetworkPolicy => one(node, Object::NetworkPolicy),
        Kind::ClusterNetworkPolicy => one(node, Object::ClusterNetworkPolicy),
        Kind::AdminNetworkPolicy => one(node, Object::AdminNetworkPolicy),
        Kind::BaselineAdminNetworkPolicy => one(node, Object::BaselineAdminNetworkPolicy),
        Kind::HttpRoute => one(node, Object::HttpRoute),
        Kind::TcpRoute => one(node, Object::TcpRoute),
        Kind::UdpRoute => one(node, Object::UdpRoute),
        Kind::VirtualService => one(node, Object::VirtualService),
        Kind::DestinationRule => one(node, Object::DestinationRule),
    }
}

/// A fault of a field, with the line of the nearest node that exists.
fn fault(node: &Node, field: &str, message: &str) -> Fault {
    let mut nearest = node;
    for part in field.split('.') {
        match nearest.get(part) {
            Some(child) => nearest = child,
            None => break,
        }
    }
    Fault {
        line: nearest.line,
        field: field.to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
