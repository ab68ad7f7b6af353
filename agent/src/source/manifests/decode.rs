//! From documents to objects.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::input::{Fault, Input, Read};
use super::split;
use crate::source::core::{NetworkPolicy, NetworkPolicySpec};
use crate::source::schema::{LabelSelector, ObjectMeta};
use crate::source::{Kind, Object, ObjectKey};

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
    /// For a NetworkPolicy: one that selects the same pods, or all of its namespace, and allows
    /// nothing. A policy that cannot be read never means that there is none.
    pub closed: Option<Box<NetworkPolicy>>,
}

/// The objects of a YAML stream.
pub fn yaml(text: &str) -> Vec<Decoded> {
    let mut found = Vec::new();
    for document in split::documents(text) {
        let place = Place {
            begins: document.line,
            lines_before: document.lines_before,
            prefix: String::new(),
        };
        decode(Input::Yaml(document.text), &place, &mut found);
    }
    found
}

/// The objects of a JSON file: one, or a list.
pub fn json(text: &str) -> Vec<Decoded> {
    let mut found = Vec::new();
    if !text.trim().is_empty() {
        let place = Place {
            begins: 1,
            lines_before: 0,
            prefix: String::new(),
        };
        decode(Input::Json(text), &place, &mut found);
    }
    found
}

/// Where a document stands in its file.
struct Place {
    begins: u32,
    lines_before: u32,
    /// Prefix for paths of fields: `items[3]` for an item of a list.
    prefix: String,
}

impl Place {
    fn line(&self, fault: &Fault) -> u32 {
        match fault.line {
            0 => self.begins,
            line => self.lines_before + line,
        }
    }

    fn path(&self, field: &str) -> String {
        match (self.prefix.is_empty(), field.is_empty()) {
            (true, _) => field.to_owned(),
            (false, true) => self.prefix.clone(),
            (false, false) => format!("{}.{field}", self.prefix),
        }
    }

    fn bad(&self, key: Option<ObjectKey>, fault: &Fault) -> Decoded {
        Decoded {
            line: self.line(fault),
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

fn decode(input: Input<'_>, place: &Place, found: &mut Vec<Decoded>) {
    let head = match input.read::<Head>() {
        Ok(read) => read.value,
        Err(fault) => return found.push(place.bad(None, &fault)),
    };
    if head.kind.is_empty() || head.api_version.is_empty() {
        let missing = if head.kind.is_empty() {
            "kind"
        } else {
            "apiVersion"
        };
        return found.push(place.bad(
            None,
            &fault(missing, "missing: say what object this is, for example `apiVersion: v1` and `kind: Service`"),
        ));
    }
    let (group, version) = head
        .api_version
        .rsplit_once('/')
        .unwrap_or(("", &head.api_version));
    if group.is_empty() && head.kind == "List" {
        return decode_list(input, place, found);
    }
    found.push(match Kind::find(group, &head.kind) {
        Some(kind) => decode_object(input, kind, version, &head, place),
        None => Decoded {
            line: place.begins,
            content: Content::Skipped(format!("{}/{}", head.api_version, head.kind)),
        },
    });
}

fn decode_object(
    input: Input<'_>,
    kind: Kind,
    version: &str,
    head: &Head,
    place: &Place,
) -> Decoded {
    let key = match object_key(kind, head) {
        Ok(key) => key,
        Err(fault) => return place.bad(None, &fault),
    };
    let read = if kind.api().1.contains(&version) {
        read_object(input, kind)
    } else {
        let wanted = kind.api_version();
        Err(fault(
            "apiVersion",
            &format!(
                "{} is not a version of {kind} that is understood: write {wanted}",
                head.api_version
            ),
        ))
    };
    match read {
        Ok((object, unknown)) => Decoded {
            line: place.begins,
            content: Content::Object(
                object,
                unknown.iter().map(|path| place.path(path)).collect(),
            ),
        },
        Err(fault) => {
            let mut decoded = place.bad(Some(key.clone()), &fault);
            if let Content::Bad(bad) = &mut decoded.content
                && kind == Kind::NetworkPolicy
            {
                bad.closed = Some(Box::new(closed_policy(input, &key)));
            }
            decoded
        }
    }
}

fn object_key(kind: Kind, head: &Head) -> Result<ObjectKey, Fault> {
    let none = HeadMeta::default();
    let meta = head.metadata.as_ref().unwrap_or(&none);
    let name = match meta.name.as_deref() {
        Some(name) if !name.is_empty() => name,
        _ if meta.generate_name.is_some() => {
            return Err(fault(
                "metadata.generateName",
                "only the API server makes names: give metadata.name",
            ));
        }
        _ => return Err(fault("metadata.name", "missing: every object needs a name")),
    };
    check_name("metadata.name", name)?;
    if let Some(namespace) = &meta.namespace {
        check_name("metadata.namespace", namespace)?;
    }
    Ok(ObjectKey::new(kind, meta.namespace.as_deref(), name))
}

fn check_name(field: &str, name: &str) -> Result<(), Fault> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if name.len() <= 253 && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(fault(
        field,
        &format!("{name:?} is not a name: use at most 253 of a-z, 0-9, '-' and '.'"),
    ))
}

fn read_object(input: Input<'_>, kind: Kind) -> Result<(Object, Vec<String>), Fault> {
    fn one<T: DeserializeOwned>(
        input: Input<'_>,
        wrap: impl FnOnce(Box<T>) -> Object,
    ) -> Result<(Object, Vec<String>), Fault> {
        let Read { value, unknown } = input.read::<T>()?;
        Ok((wrap(Box::new(value)), unknown))
    }
    match kind {
        Kind::Namespace => one(input, Object::Namespace),
        Kind::Node => one(input, Object::Node),
        Kind::Pod => one(input, Object::Pod),
        Kind::Service => one(input, Object::Service),
        Kind::EndpointSlice => one(input, Object::EndpointSlice),
        Kind::NetworkPolicy => one(input, Object::NetworkPolicy),
        Kind::HttpRoute => one(input, Object::HttpRoute),
        Kind::TcpRoute => one(input, Object::TcpRoute),
        Kind::UdpRoute => one(input, Object::UdpRoute),
        Kind::VirtualService => one(input, Object::VirtualService),
        Kind::DestinationRule => one(input, Object::DestinationRule),
    }
}

/// A policy for the pods of one that cannot be read, which allows nothing.
fn closed_policy(input: Input<'_>, key: &ObjectKey) -> NetworkPolicy {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Loose {
        spec: Value,
    }
    let spec = input
        .read::<Loose>()
        .map_or(Value::Null, |read| read.value.spec);
    let part = |name: &str| spec.get(name).cloned().unwrap_or(Value::Null);
    let pod_selector = serde_json::from_value::<LabelSelector>(part("podSelector")).ok();
    let types = serde_json::from_value::<Vec<String>>(part("policyTypes")).ok();
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: NetworkPolicySpec {
            pod_selector: pod_selector.unwrap_or_default(),
            policy_types: types.unwrap_or_else(|| vec!["Ingress".into(), "Egress".into()]),
            ..NetworkPolicySpec::default()
        },
        ..NetworkPolicy::default()
    }
}

fn decode_list(input: Input<'_>, place: &Place, found: &mut Vec<Decoded>) {
    #[derive(Deserialize)]
    struct Lines {
        #[serde(default)]
        items: Vec<serde_saphyr::Spanned<serde::de::IgnoredAny>>,
    }
    #[derive(Deserialize)]
    struct List {
        #[serde(default)]
        items: Vec<Value>,
    }
    let list = match input.read::<List>() {
        Ok(read) => read.value,
        Err(fault) => return found.push(place.bad(None, &fault)),
    };
    let lines: Vec<u32> = match input {
        Input::Yaml(text) => {
            serde_saphyr::from_str_with_options::<Lines>(text, super::input::options())
                .map(|read| {
                    let line = |item: &serde_saphyr::Spanned<_>| item.referenced.line();
                    read.items
                        .iter()
                        .map(|item| u32::try_from(line(item)).unwrap_or(0))
                        .collect()
                })
                .unwrap_or_default()
        }
        Input::Json(_) | Input::Item(_) => Vec::new(),
    };
    for (index, item) in list.items.iter().enumerate() {
        let begins = match lines.get(index) {
            Some(&line) if line > 0 => place.lines_before + line,
            _ => place.begins,
        };
        let item_place = Place {
            begins,
            lines_before: place.lines_before,
            prefix: place.path(&format!("items[{index}]")),
        };
        decode(Input::Item(item), &item_place, found);
    }
}

fn fault(field: &str, message: &str) -> Fault {
    Fault {
        line: 0,
        field: field.to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
