//! How many objects there are, before they are read: the maps are made for that many.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::link::{Link, broken};
use super::{Failure, kinds};
use crate::source::Kind;

/// Objects that are looked at; the others are taken to be like them.
const LOOKED_AT: u64 = 100;
/// Longer than so many objects.
const LONGEST: usize = 16 << 20;

/// What there is in the cluster, as far as maps depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Services with an address.
    pub services: u64,
    /// Their ports.
    pub ports: u64,
    /// Endpoints, once for each port.
    pub endpoints: u64,
}

#[derive(Deserialize)]
struct Page {
    metadata: PageMeta,
    #[serde(default)]
    items: Vec<Listed>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    remaining_item_count: Option<u64>,
}

/// A Service or a slice, as far as it is counted.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Listed {
    spec: Option<Spec>,
    endpoints: Option<Vec<serde::de::IgnoredAny>>,
    ports: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    ports: Option<Vec<serde::de::IgnoredAny>>,
}

impl Listed {
    /// Ports of a Service, or endpoints of a slice by port.
    fn weight(&self) -> u64 {
        let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len) as u64;
        match &self.spec {
            Some(spec) => count(&spec.ports),
            None => count(&self.endpoints) * count(&self.ports),
        }
    }
}

/// Counts by the beginnings of two lists.
///
/// # Errors
///
/// The server does not answer in time, or not as it should.
pub async fn census(link: &Link, patience: Duration) -> Result<Census, Failure> {
    let (services, ports) = count(link, Kind::Service, patience).await?;
    let (_, endpoints) = count(link, Kind::EndpointSlice, patience).await?;
    Ok(Census {
        services,
        ports,
        endpoints,
    })
}

/// How many objects of a kind there are, and about how much they weigh.
async fn count(link: &Link, kind: Kind, patience: Duration) -> Result<(u64, u64), Failure> {
    // Without selectors: with them, the server tells no total.
    let url = format!("{}?limit={LOOKED_AT}", kinds::path(kind));
    let response = link.get(&url, patience).await?;
    let body = Limited::new(response.into_body(), LONGEST).collect();
    let body = match tokio::time::timeout(patience, body).await {
        Err(_) => return Err(Failure::Stalled),
        Ok(Err(error)) => return Err(broken(&*error)),
        Ok(Ok(body)) => body.to_bytes(),
    };
    extrapolated(&body).map_err(|error| Failure::Garbage(format!("{url}: {error}")))
}

fn extrapolated(page: &[u8]) -> Result<(u64, u64), serde_json::Error> {
    let page: Page = serde_json::from_slice(page)?;
    let seen = page.items.len() as u64;
    let weight: u64 = page.items.iter().map(Listed::weight).sum();
    let all = seen + page.metadata.remaining_item_count.unwrap_or(0);
    Ok((all, (weight * all).div_ceil(seen.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_like_what_is() {
        let service = r#"{"metadata":{"name":"a"},"spec":{"ports":[{},{}]}}"#;
        let page = format!(
            r#"{{"metadata":{{"remainingItemCount":8,"continue":"x"}},"items":[{service},{service}]}}"#
        );
        assert_eq!(extrapolated(page.as_bytes()).unwrap(), (10, 20));
        let slices = r#"{"metadata":{},"items":[
            {"endpoints":[{},{},{}],"ports":[{}]},{"endpoints":null,"ports":null}]}"#;
        assert_eq!(extrapolated(slices.as_bytes()).unwrap(), (2, 3));
        assert_eq!(extrapolated(br#"{"metadata":{}}"#).unwrap(), (0, 0));
        assert!(extrapolated(b"{}").is_err());
    }
}
