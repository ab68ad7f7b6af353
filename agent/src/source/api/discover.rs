//! Whether the cluster serves a kind, and where.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Failure;
use super::link::{Link, broken};
use crate::source::Kind;

/// Longer than any list of a group's resources.
const LONGEST: usize = 4 << 20;

/// `meta/v1` APIGroup.
#[derive(Deserialize)]
struct Group {
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

/// `meta/v1` APIResourceList.
#[derive(Deserialize)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
}

/// The path of an optional kind; `None` if it is not served in a version that is understood.
///
/// # Errors
///
/// The server does not say.
pub async fn discover(
    link: &Link,
    kind: Kind,
    patience: Duration,
) -> Result<Option<String>, Failure> {
    let (group, versions) = kind.api();
    let Some(served) = get::<Group>(link, &format!("/apis/{group}"), patience).await? else {
        return Ok(None);
    };
    let served = |version: &&&str| served.versions.iter().any(|v| v.version == **version);
    for version in versions.iter().filter(served) {
        let base = format!("/apis/{group}/{version}");
        let Some(list) = get::<Resources>(link, &base, patience).await? else {
            continue;
        };
        let mut resources = list.resources.into_iter();
        // The name of a part of an object, like its status, has a slash.
        if let Some(found) = resources.find(|r| r.kind == kind.name() && !r.name.contains('/')) {
            return Ok(Some(format!("{base}/{}", found.name)));
        }
    }
    Ok(None)
}

async fn get<T: DeserializeOwned>(
    link: &Link,
    path: &str,
    patience: Duration,
) -> Result<Option<T>, Failure> {
    let response = match link.get(path, patience).await {
        Err(Failure::Status { code: 404, .. }) => return Ok(None),
        other => other?,
    };
    let body = Limited::new(response.into_body(), LONGEST).collect();
    let body = match tokio::time::timeout(patience, body).await {
        Err(_) => return Err(Failure::Stalled),
        Ok(Err(error)) => return Err(broken(&*error)),
        Ok(Ok(body)) => body.to_bytes(),
    };
    let read = serde_json::from_slice(&body);
    read.map(Some)
        .map_err(|error| Failure::Garbage(format!("{path}: {error}")))
}
