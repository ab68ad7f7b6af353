//! One object's metadata, asked for by a list of one: the agent may list objects and get none.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::link::{Link, broken};
use super::{Failure, discover, kinds};
use crate::source::ObjectKey;

/// A list of one object is at most so long.
const LONGEST: usize = 4 << 20;
/// How long the server has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) uid: Option<String>,
    generation: Option<i64>,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
}

/// An object's metadata; `None` if there is no such object.
pub(super) async fn metadata(link: &Link, object: &ObjectKey) -> Result<Option<Metadata>, Failure> {
    let Some(path) = path(link, object).await? else {
        return Ok(None);
    };
    let path = format!("{path}?fieldSelector=metadata.name%3D{}", object.name);
    let answer = link.get(&path, PATIENCE).await?;
    let body = Limited::new(answer.into_body(), LONGEST).collect();
    let body = match tokio::time::timeout(PATIENCE, body).await {
        Err(_) => return Err(Failure::Stalled),
        Ok(Err(error)) => return Err(broken(&*error)),
        Ok(Ok(body)) => body.to_bytes(),
    };
    let list: List = serde_json::from_slice(&body)
        .map_err(|error| Failure::Garbage(format!("{path}: {error}")))?;
    Ok(list.items.into_iter().next().map(|item| item.metadata))
}

/// Where objects of the kind and namespace are listed; `None` if the kind is not served.
pub(super) async fn path(link: &Link, object: &ObjectKey) -> Result<Option<String>, Failure> {
    let all = if kinds::is_optional(object.kind) {
        discover::discover(link, object.kind, PATIENCE).await?
    } else {
        Some(kinds::path(object.kind))
    };
    let ObjectKey { namespace, .. } = object;
    Ok(all.and_then(|all| {
        let (base, plural) = all.rsplit_once('/')?;
        Some(match namespace.as_str() {
            "" => format!("{base}/{plural}"),
            namespace => format!("{base}/namespaces/{namespace}/{plural}"),
        })
    }))
}

/// Asks the API server for the versions of objects. Without one there are none.
#[derive(Clone, Debug, Default)]
pub struct Versions(Option<Arc<Link>>);

impl Versions {
    pub(in crate::source) fn new(link: Arc<Link>) -> Self {
        Self(Some(link))
    }

    /// `metadata.generation` of an object as it is now. To be called on a thread that may wait.
    ///
    /// # Errors
    ///
    /// The server does not say.
    pub fn of(&self, object: &ObjectKey) -> Result<Option<i64>, Failure> {
        let Some(link) = &self.0 else {
            return Ok(None);
        };
        let runtime = tokio::runtime::Handle::current();
        let metadata = runtime.block_on(metadata(link, object))?;
        Ok(metadata.and_then(|metadata| metadata.generation))
    }
}
