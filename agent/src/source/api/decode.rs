//! From JSON to objects: a line of a watch, or a page of a list.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::source::schema::ObjectMeta;
use crate::source::{Kind, Object, ObjectKey, closed};

/// What a line of a watch says.
#[derive(Debug)]
pub enum Event {
    /// An object is new or has changed.
    Apply(Item),
    /// An object is gone.
    Delete(Identity),
    /// The server has delivered everything up to a version.
    Bookmark {
        /// The version.
        version: String,
        /// All objects that were there at the beginning have been delivered.
        initial_end: bool,
    },
    /// The server ends the watch, with an HTTP status code.
    Error {
        /// The code.
        code: u16,
        /// Why.
        message: String,
    },
}

/// An object as it came.
#[derive(Debug)]
pub enum Item {
    /// It can be read.
    Object(Identity, Object),
    /// It cannot.
    Bad(Bad),
}

impl Item {
    /// Which object it is.
    pub fn identity(&self) -> &Identity {
        match self {
            Item::Object(identity, _) => identity,
            Item::Bad(bad) => &bad.identity,
        }
    }
}

/// An object that does not have the form of its kind.
#[derive(Debug)]
pub struct Bad {
    /// Which one.
    pub identity: Identity,
    /// Why.
    pub message: String,
    /// Of a policy: what stands in for it.
    pub closed: Option<Object>,
}

/// What an object is known by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identity {
    /// Its namespace; empty if it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `resourceVersion`.
    pub version: String,
}

impl Identity {
    fn new(meta: &ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
        }
    }

    /// The version as a number (KEP-5504), or 0.
    pub fn number(&self) -> u64 {
        self.version.parse().unwrap_or(0)
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct Page {
    /// The version of the whole list.
    pub version: String,
    /// The token of the next page.
    pub next: Option<String>,
    /// The objects.
    pub items: Vec<Item>,
}

#[derive(Deserialize)]
struct Line<'a, T> {
    #[serde(rename = "type", borrow)]
    ty: Cow<'a, str>,
    object: T,
}

/// Only what says which object it is.
#[derive(Deserialize)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HeadMeta {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    annotations: Option<HeadAnnotations>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HeadAnnotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<String>,
}

impl Head {
    fn identity(self) -> Identity {
        Identity {
            namespace: self.metadata.namespace.unwrap_or_default(),
            name: self.metadata.name.unwrap_or_default(),
            version: self.metadata.resource_version.unwrap_or_default(),
        }
    }
}

/// `meta/v1` Status.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: Option<u16>,
    message: Option<String>,
    reason: Option<String>,
}

/// Reads a line of a watch.
///
/// # Errors
///
/// What is wrong with it, if it cannot be told what it is about.
pub fn line(kind: Kind, text: &[u8]) -> Result<Event, String> {
    // Nearly every line is an object in the form of its kind: one pass.
    match read::<LineOf>(kind, text) {
        Ok((ty, object)) if matches!(&*ty, "ADDED" | "MODIFIED" | "DELETED") => {
            let identity = identity_of(&object);
            if identity.name.is_empty() {
                return Err("an event about an object without a name".to_owned());
            }
            Ok(match &*ty {
                "DELETED" => Event::Delete(identity),
                _ => Event::Apply(Item::Object(identity, object)),
            })
        }
        Ok(_) => other(text),
        Err(error) => malformed(kind, text, &error),
    }
}

/// Reads a page of a list.
///
/// # Errors
///
/// It is not a list. An object that cannot be read is an item of its own.
pub fn page(kind: Kind, text: &[u8]) -> Result<Page, String> {
    #[derive(Deserialize)]
    struct List<'a> {
        metadata: ListMeta,
        #[serde(borrow)]
        items: Option<Vec<&'a RawValue>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ListMeta {
        resource_version: Option<String>,
        r#continue: Option<String>,
    }
    let list: List<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let items = list.items.unwrap_or_default();
    let items = items
        .into_iter()
        .map(|item| self::item(kind, item.get().as_bytes()));
    Ok(Page {
        version: list.metadata.resource_version.unwrap_or_default(),
        next: list.metadata.r#continue.filter(|token| !token.is_empty()),
        items: items.collect::<Result<_, _>>()?,
    })
}

fn item(kind: Kind, text: &[u8]) -> Result<Item, String> {
    match read::<Plain>(kind, text) {
        Ok(object) => Ok(Item::Object(identity_of(&object), object)),
        Err(error) => {
            let head: Head = serde_json::from_slice(text).map_err(|_| error.clone())?;
            Ok(Item::Bad(bad(kind, head.identity(), error, || {
                text.to_vec()
            })))
        }
    }
}

/// A line that is not about an object.
fn other(text: &[u8]) -> Result<Event, String> {
    let line: Line<'_, &RawValue> =
        serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let object = line.object.get();
    match &*line.ty {
        "BOOKMARK" => {
            let head: Head = serde_json::from_str(object).map_err(|error| error.to_string())?;
            let annotations = head.metadata.annotations.unwrap_or_default();
            Ok(Event::Bookmark {
                version: head.metadata.resource_version.unwrap_or_default(),
                initial_end: annotations.initial_events_end.as_deref() == Some("true"),
            })
        }
        "ERROR" => {
            let status: Status = serde_json::from_str(object).map_err(|error| error.to_string())?;
            Ok(Event::Error {
                code: status.code.unwrap_or(500),
                message: status.message.or(status.reason).unwrap_or_default(),
            })
        }
        other => Err(format!("an event of an unknown type {other:?}")),
    }
}

/// A line whose object does not have the form of its kind.
fn malformed(kind: Kind, text: &[u8], error: &str) -> Result<Event, String> {
    let line: Line<'_, &RawValue> =
        serde_json::from_slice(text).map_err(|_| format!("not an event: {error}"))?;
    let deleted = match &*line.ty {
        "ADDED" | "MODIFIED" => false,
        "DELETED" => true,
        _ => return other(text),
    };
    let object = line.object.get();
    let head: Head =
        serde_json::from_str(object).map_err(|_| format!("an object without metadata: {error}"))?;
    let identity = head.identity();
    if identity.name.is_empty() {
        return Err("an event about an object without a name".to_owned());
    }
    if deleted {
        return Ok(Event::Delete(identity));
    }
    // The position is that in the object.
    let message = read::<Plain>(kind, object.as_bytes()).err();
    let message = message.unwrap_or_else(|| error.to_owned());
    Ok(Event::Apply(Item::Bad(bad(
        kind,
        identity,
        message,
        || object.as_bytes().to_vec(),
    ))))
}

fn bad(kind: Kind, identity: Identity, message: String, text: impl FnOnce() -> Vec<u8>) -> Bad {
    let closed = kind.is_policy().then(|| {
        let spec: Option<Specified> = serde_json::from_slice(&text()).ok();
        let Specified { metadata, spec } = spec.unwrap_or_default();
        let key = ObjectKey::new(kind, Some(&identity.namespace), &identity.name);
        closed::policy(&key, &metadata, spec)
    });
    Bad {
        identity,
        message,
        closed: closed.flatten(),
    }
}

/// Only what an object asks for.
#[derive(Deserialize, Default)]
struct Specified {
    #[serde(default)]
    metadata: serde_json::Value,
    #[serde(default)]
    spec: serde_json::Value,
}

fn identity_of(object: &Object) -> Identity {
    Identity::new(object.metadata())
}

/// What an object is wrapped in.
trait Shape {
    type Out<'a>;
    fn read<'a, T: DeserializeOwned>(
        text: &'a [u8],
        wrap: impl FnOnce(Box<T>) -> Object,
    ) -> Result<Self::Out<'a>, serde_json::Error>;
}

/// In nothing.
struct Plain;
/// In a line of a watch.
struct LineOf;

impl Shape for Plain {
    type Out<'a> = Object;
    fn read<T: DeserializeOwned>(
        text: &[u8],
        wrap: impl FnOnce(Box<T>) -> Object,
    ) -> Result<Object, serde_json::Error> {
        serde_json::from_slice(text).map(|object| wrap(Box::new(object)))
    }
}

impl Shape for LineOf {
    type Out<'a> = (Cow<'a, str>, Object);
    fn read<'a, T: DeserializeOwned>(
        text: &'a [u8],
        wrap: impl FnOnce(Box<T>) -> Object,
    ) -> Result<Self::Out<'a>, serde_json::Error> {
        let line: Line<'a, T> = serde_json::from_slice(text)?;
        Ok((line.ty, wrap(Box::new(line.object))))
    }
}

fn read<S: Shape>(kind: Kind, text: &[u8]) -> Result<S::Out<'_>, String> {
    let read = match kind {
        Kind::Namespace => S::read(text, Object::Namespace),
        Kind::Node => S::read(text, Object::Node),
        Kind::Pod => S::read(text, Object::Pod),
        Kind::Service => S::read(text, Object::Service),
        Kind::EndpointSlice => S::read(text, Object::EndpointSlice),
        Kind::NetworkPolicy => S::read(text, Object::NetworkPolicy),
        Kind::ClusterNetworkPolicy => S::read(text, Object::ClusterNetworkPolicy),
        Kind::AdminNetworkPolicy => S::read(text, Object::AdminNetworkPolicy),
        Kind::BaselineAdminNetworkPolicy => S::read(text, Object::BaselineAdminNetworkPolicy),
        Kind::HttpRoute => S::read(text, Object::HttpRoute),
        Kind::TcpRoute => S::read(text, Object::TcpRoute),
        Kind::UdpRoute => S::read(text, Object::UdpRoute),
        Kind::VirtualService => S::read(text, Object::VirtualService),
        Kind::DestinationRule => S::read(text, Object::DestinationRule),
    };
    read.map_err(|error| error.to_string())
}
