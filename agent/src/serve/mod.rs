//! HTTP: kube-proxy's health checks and metrics, and health checks of load balancers.

mod checks;
mod health;
mod listen;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::admin::wait::PolicyOnNode;
use crate::config::{File, Settings};
use crate::metrics::{self, Metrics, Probe};
use crate::observe::policies::InForce;
use crate::observe::sample::Sampler;
use crate::source::api::Events;
use crate::source::{Kind, ObjectKey};
pub use checks::{Check, Checks};
pub use health::{Health, NodeState};

/// Between two attempts at an address that is taken, as in kube-proxy.
const RETRY: Duration = Duration::from_secs(5);

/// Why the agent cannot go on without an address.
#[derive(Debug, thiserror::Error)]
#[error(
    "listening on {address} for {what}: {source}; give it another address, or set bindAddressHardFail: false"
)]
pub struct Error {
    address: SocketAddr,
    what: &'static str,
    source: std::io::Error,
}

/// What the answers come from.
pub struct Sources {
    /// The state of the proxy.
    pub health: watch::Receiver<Health>,
    /// Health checks of load balancers.
    pub checks: watch::Receiver<Arc<Checks>>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What is read when metrics are asked for.
    pub sampler: Sampler,
    /// Where Events go.
    pub events: Events,
    /// Policies in force.
    pub policies: InForce,
}

struct Shared {
    health: watch::Receiver<Health>,
    metrics: Arc<Metrics>,
    sampler: Sampler,
    timeout: Duration,
    proxy_mode: String,
    configz: Value,
    node: String,
    policies: InForce,
}

type Context = State<Arc<Shared>>;

/// Serves on the current runtime. An address that is taken is tried again.
///
/// # Errors
///
/// An address is taken, and the settings say that this is not to be borne.
pub async fn start(settings: &Settings, sources: Sources) -> Result<(), Error> {
    let Sources {
        health,
        checks,
        metrics,
        sampler,
        events,
        policies,
    } = sources;
    let timeout = settings.health_timeout;
    let events = checks::Teller {
        events,
        node: settings.node_name.clone(),
    };
    tokio::spawn(checks::run(checks, health.clone(), timeout, events));
    let shared = Arc::new(Shared {
        health,
        metrics,
        sampler,
        timeout,
        proxy_mode: settings.proxy_mode.clone(),
        configz: configz(settings),
        node: settings.node_name.clone(),
        policies,
    });
    let healthz = Router::new()
        .route("/healthz", get(answer_healthz))
        .route("/livez", get(answer_livez))
        .route("/policy/{kind}/{name}", get(answer_policy))
        .route("/policy/{kind}/{namespace}/{name}", get(answer_policy))
        .with_state(Arc::clone(&shared));
    let metrics = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/metrics", get(answer_metrics))
        .route("/proxyMode", get(answer_mode))
        .route("/configz", get(answer_configz))
        .with_state(shared);
    for (address, what, router) in [
        (settings.healthz, "/healthz and /livez", healthz),
        (settings.metrics, "/metrics", metrics),
    ] {
        if let Some(address) = address {
            serve(address, what, router, settings.bind_hard_fail).await?;
        }
    }
    Ok(())
}

async fn serve(
    address: SocketAddr,
    what: &'static str,
    router: Router,
    hard_fail: bool,
) -> Result<(), Error> {
    let first = match listen::listen(address) {
        Ok(listener) => Some(listener),
        Err(source) if hard_fail => {
            return Err(Error {
                address,
                what,
                source,
            });
        }
        Err(error) => {
            warn!(%address, %error, "listening for {what}: it is tried again; free the address or set another");
            None
        }
    };
    tokio::spawn(async move {
        let listener = match first {
            Some(listener) => listener,
            None => listen::until_free(address, RETRY).await,
        };
        info!(%address, "answering {what}");
        // It ends only with the runtime.
        let _ = axum::serve(listener, router).await;
    });
    Ok(())
}

async fn answer_healthz(State(shared): Context) -> Response {
    let eligible = shared.health.borrow().is_eligible();
    shared.probe(Probe::Healthz, Some(eligible))
}

async fn answer_livez(State(shared): Context) -> Response {
    shared.probe(Probe::Livez, None)
}

/// The version of a policy that is in force here, for `sluice policy wait` on other nodes.
async fn answer_policy(
    State(shared): Context,
    Path(place): Path<HashMap<String, String>>,
) -> Response {
    let part = |name: &str| place.get(name).map(String::as_str);
    let Some(kind) = part("kind").and_then(Kind::policy) else {
        return text(StatusCode::NOT_FOUND, "not a kind of policies".to_owned());
    };
    let key = ObjectKey::new(kind, part("namespace"), part("name").unwrap_or_default());
    let answer = PolicyOnNode {
        node: shared.node.clone(),
        generation: shared.policies.generation(&key),
    };
    json_text(StatusCode::OK, &answer)
}

async fn answer_metrics(State(shared): Context, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let form = metrics::form(accept.unwrap_or_default());
    let sample = match shared.sampler.sample().await {
        Ok(sample) => sample,
        Err(error) => {
            warn!(%error, "reading the maps for /metrics");
            return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
        }
    };
    let text = shared.metrics.text(&sample, form);
    ([(header::CONTENT_TYPE, form.content_type())], text).into_response()
}

async fn answer_mode(State(shared): Context) -> Response {
    text(StatusCode::OK, shared.proxy_mode.clone())
}

async fn answer_configz(State(shared): Context) -> Response {
    json_text(StatusCode::OK, &shared.configz)
}

impl Shared {
    fn probe(&self, probe: Probe, eligible: Option<bool>) -> Response {
        let now = (Instant::now(), Timestamp::now());
        let (good, report) = self.health.borrow().report(now, self.timeout, eligible);
        let status = if good {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        self.metrics.probed(probe, status.as_u16());
        json_text(status, &report)
    }
}

/// The settings in force, and those of them that kube-proxy has under its own names.
fn configz(settings: &Settings) -> Value {
    let bind = |address: Option<SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    let file = File::from(settings);
    let kube_proxy = json!({
        "apiVersion": crate::kubeproxy::API_VERSION,
        "kind": crate::kubeproxy::KIND,
        "mode": settings.proxy_mode,
        "hostnameOverride": settings.node_name,
        "healthzBindAddress": bind(settings.healthz),
        "metricsBindAddress": bind(settings.metrics),
        "bindAddressHardFail": settings.bind_hard_fail,
        "nodePortAddresses": file.node_port_addresses,
        "iptables": {"masqueradeAll": settings.masquerade_all},
        "oomScoreAdj": settings.oom_score_adj,
    });
    json!({"kubeproxy.config.k8s.io": kube_proxy, "sluice": file})
}

fn text(status: StatusCode, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, text).into_response()
}

fn json_text(status: StatusCode, value: &impl serde::Serialize) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    match serde_json::to_string(value) {
        Ok(text) => (status, headers, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
