//! `healthCheckNodePort`: a load balancer asks on this port whether the node has endpoints of a
//! Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dataplane_model::snapshot::ObjectKey as ServiceKey;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Health, RETRY, listen};
use crate::source::api::{Events, Told};
use crate::source::{Kind, ObjectKey};

const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// The health checks to answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checks {
    /// Addresses to listen on; `None` for all.
    pub addresses: Option<Vec<IpAddr>>,
    /// By Service.
    pub services: BTreeMap<ServiceKey, Check>,
    /// Changes with what is to be listened on.
    revision: u64,
}

impl Checks {
    /// A Service has this check now, or none.
    pub fn set(&mut self, service: ServiceKey, check: Option<Check>) {
        let port = check.map(|check| check.port);
        let before = match check {
            Some(check) => self.services.insert(service, check),
            None => self.services.remove(&service),
        };
        self.revision += u64::from(before.map(|check| check.port) != port);
    }

    /// Sets the addresses to listen on. True if they are others than before.
    pub fn listen_on(&mut self, addresses: Option<Vec<IpAddr>>) -> bool {
        let changed = self.addresses != addresses;
        self.addresses = addresses;
        self.revision += u64::from(changed);
        changed
    }
}

/// A Service's health check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Check {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// Addresses of ready endpoints on this node: IPv4, IPv6. Who asks by one family is told of it.
    pub local: [usize; 2],
}

/// What is listened on, for whom.
type Place = (ServiceKey, SocketAddr);

/// Tells owners of Services of health checks that cannot be served.
pub struct Teller {
    /// Where Events go.
    pub events: Events,
    /// This node.
    pub node: String,
}

impl Teller {
    /// Under kube-proxy's reason.
    fn failed(&self, (service, address): &Place, error: &str) {
        let node = &self.node;
        self.events.tell(Told {
            object: ObjectKey::new(Kind::Service, Some(&service.namespace), &service.name),
            reason: "FailedToStartServiceHealthcheck",
            note: format!(
                "node {node} failed to listen on {address} for the Service's healthCheckNodePort: {error}; \
                 it is tried again"
            ),
        });
    }
}

#[derive(Clone)]
struct Asked {
    service: ServiceKey,
    checks: watch::Receiver<Arc<Checks>>,
    health: watch::Receiver<Health>,
    timeout: Duration,
}

/// Opens and closes ports as Services come and go, until the agent ends.
pub async fn run(
    mut checks: watch::Receiver<Arc<Checks>>,
    health: watch::Receiver<Health>,
    timeout: Duration,
    teller: Teller,
) {
    let mut open: BTreeMap<Place, JoinHandle<()>> = BTreeMap::new();
    let mut warned: BTreeMap<Place, String> = BTreeMap::new();
    loop {
        let (wanted, revision) = {
            let checks = checks.borrow_and_update();
            (places(&checks), checks.revision)
        };
        open.retain(|place, task| {
            let stays = wanted.contains(place);
            if !stays {
                debug!(service = %place.0, address = %place.1, "health check closed");
                task.abort();
            }
            stays
        });
        warned.retain(|place, _| wanted.contains(place));
        for place in wanted {
            if open.contains_key(&place) {
                continue;
            }
            match listen::listen(place.1) {
                Ok(listener) => {
                    debug!(service = %place.0, address = %place.1, "health check open");
                    let asked = Asked {
                        service: place.0.clone(),
                        checks: checks.clone(),
                        health: health.clone(),
                        timeout,
                    };
                    let router = Router::new().fallback(answer).with_state(asked);
                    let router = router.into_make_service_with_connect_info::<SocketAddr>();
                    let task = tokio::spawn(async move {
                        // It ends only with the task.
                        let _ = axum::serve(listener, router).await;
                    });
                    warned.remove(&place);
                    open.insert(place, task);
                }
                Err(error) => {
                    let text = error.to_string();
                    if warned.get(&place) != Some(&text) {
                        warn!(service = %place.0, address = %place.1, error = %text, "the Service's health check cannot be served; it is tried again");
                        teller.failed(&place, &text);
                        warned.insert(place, text);
                    }
                }
            }
        }
        let changed = checks.wait_for(|checks| checks.revision != revision);
        if warned.is_empty() {
            if changed.await.is_err() {
                return;
            }
        } else if let Ok(Err(_)) = tokio::time::timeout(RETRY, changed).await {
            return;
        }
    }
}

/// Closed ones must be closed before others take their ports, so the whole list is made first.
fn places(checks: &Checks) -> BTreeSet<Place> {
    let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let addresses = checks.addresses.as_deref().unwrap_or(&any);
    let places = checks.services.iter().flat_map(|(service, check)| {
        let at = |ip: &IpAddr| (service.clone(), SocketAddr::new(*ip, check.port));
        addresses.iter().map(at)
    });
    places.collect()
}

async fn answer(
    State(asked): State<Asked>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> Response {
    let check = asked.checks.borrow().services.get(&asked.service).copied();
    let family = usize::from(peer.ip().to_canonical().is_ipv6());
    let local = check.map_or(0, |check| check.local[family]);
    let well = asked.health.borrow().is_well(Instant::now(), asked.timeout);
    let status = if local > 0 && well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "service": {"namespace": &*asked.service.namespace, "name": &*asked.service.name},
        "localEndpoints": local,
        "serviceProxyHealthy": well,
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        // A connection must not outlive the Service.
        (header::CONNECTION, "close".to_owned()),
        (WEIGHT, local.to_string()),
    ];
    (status, headers, body.to_string()).into_response()
}
