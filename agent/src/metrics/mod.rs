//! What `/metrics` shows: kube-proxy's metrics by their names, and our own.

mod process;
mod source;
mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::admin::protocol::WatchedKind;
use crate::observe::policies::InForce;
pub use text::{Form, form};

/// One label with its value.
type Label = [(&'static str, String); 1];
type Labels2 = [(&'static str, String); 2];
type Histograms = Family<Label, Histogram, fn() -> Histogram>;
type Number = Gauge<f64, AtomicU64>;

/// Families of addresses, as kube-proxy names them in `ip_family`.
pub const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// All metrics.
pub struct Metrics {
    registry: Registry,
    sync: Histograms,
    sync_full: Histograms,
    sync_partial: Histograms,
    last_sync: Family<Label, Number>,
    last_queued: Family<Label, Number>,
    programming: Histograms,
    endpoint_changes: Changes,
    service_changes: Changes,
    sync_failures: Family<Label, Counter>,
    probes: [Family<Label, Counter>; 2],
    no_local: Family<Labels2, Gauge>,
    sweeps: Histograms,
    swept: Family<Label, Counter>,
    event_to_map: Histogram,
    plans: Family<Label, Counter>,
    pending: Gauge,
    in_sync: Gauge,
    map_entries: Family<Label, Gauge>,
    map_capacity: Family<Label, Gauge>,
    map_pressure: Family<Label, Number>,
    drops: Family<Label, Counter>,
    errors_held: Family<Label, Counter>,
    flow_events: Family<Label, Counter>,
    audits: Family<[(&'static str, &'static str); 2], Counter>,
    half_open: Gauge,
    source: source::Source,
    cni: Family<Labels2, Counter>,
    cni_add: Histogram,
    cni_without: Counter,
    domains: Gauge,
    domains_refused: Counter,
    process: process::Process,
}

/// Changes of one kind of object.
#[derive(Clone, Debug, Default)]
struct Changes {
    total: Counter,
    pending: Gauge,
}

/// Probes of the proxy's health.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// `/healthz`.
    Healthz,
    /// `/livez`.
    Livez,
}

/// What is counted of changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// A Service.
    Service,
    /// An EndpointSlice.
    Endpoints,
}

/// What is read when somebody asks, instead of being kept up to date.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// Entries and capacity of each map.
    pub maps: Vec<(String, u64, u64)>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Dropped packets whose sender got no ICMP error, since it had many, by reason.
    pub errors_held: BTreeMap<&'static str, u64>,
    /// Verdicts while someone listens, by what became of their events.
    pub flow_events: BTreeMap<&'static str, u64>,
    /// Flows that policies in audit would deny: direction, `new` or `live`, and count.
    pub audits: Vec<([&'static str; 2], u64)>,
    /// Flows that nobody has answered.
    pub half_open: u64,
    /// The following of each kind at the API server.
    pub kinds: Vec<WatchedKind>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(InForce::default())
    }
}

impl Metrics {
    /// All at zero; which policies are in force is asked for with each text.
    pub fn new(policies: InForce) -> Self {
        let mut registry = Registry::default();
        let mut to = Registrar(&mut registry);
        let metrics = Self {
            sync: to.add("kubeproxy_sync_proxy_rules_duration_seconds", "Time to bring the maps to what the objects ask for", syncs()),
            sync_full: to.add("kubeproxy_sync_full_proxy_rules_duration_seconds", "The same, of the first plan after the start", syncs()),
            sync_partial: to.add("kubeproxy_sync_partial_proxy_rules_duration_seconds", "The same, of later plans", syncs()),
            last_sync: to.add("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "When the maps were last brought up to date", Family::default()),
            last_queued: to.add("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "When a change last came", Family::default()),
            programming: to.add("kubeproxy_network_programming_duration_seconds", "From the change of a pod or Service, by the annotation of its EndpointSlice, to the maps", Family::new_with_constructor(programming)),
            endpoint_changes: to.changes("endpoint", "EndpointSlice"),
            service_changes: to.changes("service", "Service"),
            sync_failures: to.add("kubeproxy_sync_proxy_rules_nftables_sync_failures", "Plans that could not be made or written", Family::default()),
            probes: [
                to.add("kubeproxy_proxy_healthz", "Answers of /healthz by status", Family::default()),
                to.add("kubeproxy_proxy_livez", "Answers of /livez by status", Family::default()),
            ],
            no_local: to.add("kubeproxy_sync_proxy_rules_no_local_endpoints_total", "Service ports with a Local traffic policy and endpoints, but none on this node", Family::default()),
            sweeps: to.add("kubeproxy_conntrack_reconciler_sync_duration_seconds", "Time of a pass over the table of flows", syncs()),
            swept: to.add("kubeproxy_conntrack_reconciler_deleted_entries", "Entries of flows that were removed", Family::default()),
            event_to_map: to.add("sluice_event_to_map_seconds", "From the arrival of a change to the end of the writing of maps", Histogram::new(exponential_buckets(0.000_1, 2.0, 17))),
            plans: to.add("sluice_plans", "Plans by result", Family::default()),
            pending: to.add("sluice_changes_pending", "1 while changes are not in force because a plan failed", Gauge::default()),
            in_sync: to.add("sluice_in_sync", "1 once every source has delivered its first list and it is in force", Gauge::default()),
            map_entries: to.add("sluice_map_entries", "Entries of a map", Family::default()),
            map_capacity: to.add("sluice_map_capacity", "Entries that a map has room for", Family::default()),
            map_pressure: to.add("sluice_map_pressure", "Entries of a map over its capacity", Family::default()),
            drops: to.add("sluice_drops", "Packets dropped and connections refused, by reason", Family::default()),
            errors_held: to.add("sluice_icmp_errors_held", "Dropped packets whose sender got no ICMP error, since it had many", Family::default()),
            flow_events: to.add("sluice_flow_events", "Verdicts while someone listens, by what became of their events", Family::default()),
            audits: to.add("sluice_audit_flows", "Flows that policies in audit would deny", Family::default()),
            half_open: to.add("sluice_conntrack_half_open", "Flows that nobody has answered", Gauge::default()),
            source: source::Source::register(&mut to),
            cni: to.add("sluice_cni_requests", "Requests of the CNI plugin by command and code of the answer; 0: it was done", Family::default()),
            cni_add: to.add("sluice_cni_add_seconds", "From a request ADD of the CNI plugin to the pod's policy in the kernel", Histogram::new(exponential_buckets(0.000_5, 2.0, 15))),
            cni_without: to.add("sluice_cni_pods_started_without", "Pods whose device was there before the agent and had not been handed over by the CNI plugin", Counter::default()),
            domains: to.add("sluice_domain_addresses", "Addresses that domain names of rules stand for", Gauge::default()),
            domains_refused: to.add("sluice_domain_addresses_refused", "Addresses of domain names that there was no room for", Counter::default()),
            process: to.process(),
            registry: Registry::default(),
        };
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("sluice_build", "The agent's build", build);
        registry.register_collector(Box::new(policies));
        metrics.zeroes();
        Self {
            registry,
            ..metrics
        }
    }

    /// Makes series whose absence would be read as an old version.
    fn zeroes(&self) {
        for family in FAMILIES.map(family) {
            let _ = self.sync_failures.get_or_create(&family);
            let _ = self.swept.get_or_create(&family);
            for histograms in [
                &self.sync,
                &self.sync_full,
                &self.sync_partial,
                &self.programming,
                &self.sweeps,
            ] {
                let _ = histograms.get_or_create(&family);
            }
        }
        for (probes, code) in self.probes.iter().zip(["200", "503"].iter().cycle()) {
            let _ = probes.get_or_create(&[("code", (*code).to_owned())]);
        }
        for result in ["done", "failed"] {
            let _ = self.plans.get_or_create(&[("result", result.to_owned())]);
        }
    }

    /// An object changed.
    pub fn changed(&self, what: Changed, now_secs: f64) {
        let changes = match what {
            Changed::Service => &self.service_changes,
            Changed::Endpoints => &self.endpoint_changes,
        };
        changes.total.inc();
        changes.pending.inc();
        for label in FAMILIES.map(family) {
            self.last_queued.get_or_create(&label).set(now_secs);
        }
    }

    /// A plan is in force that took so long since the first of its changes came.
    pub fn synced(&self, took: Duration, is_first: bool, now_secs: f64) {
        self.service_changes.pending.set(0);
        self.endpoint_changes.pending.set(0);
        self.event_to_map.observe(took.as_secs_f64());
        for label in FAMILIES.map(family) {
            let kind = if is_first {
                &self.sync_full
            } else {
                &self.sync_partial
            };
            for histograms in [&self.sync, kind] {
                histograms.get_or_create(&label).observe(took.as_secs_f64());
            }
            self.last_sync.get_or_create(&label).set(now_secs);
        }
    }

    /// Plans so far, and whether changes wait because one failed.
    pub fn plans(&self, done: u64, failed: u64, pending: bool, in_sync: bool) {
        for (result, count) in [("done", done), ("failed", failed)] {
            store(
                &self.plans.get_or_create(&[("result", result.to_owned())]),
                count,
            );
        }
        for label in FAMILIES.map(family) {
            store(&self.sync_failures.get_or_create(&label), failed);
        }
        self.pending.set(pending.into());
        self.in_sync.set(in_sync.into());
    }

    /// Endpoints that changed so long ago are in force now.
    pub fn programmed(&self, ip_family: &'static str, secs: f64) {
        self.programming
            .get_or_create(&family(ip_family))
            .observe(secs);
    }

    /// A probe was answered.
    pub fn probed(&self, probe: Probe, code: u16) {
        let index = match probe {
            Probe::Healthz => 0,
            Probe::Livez => 1,
        };
        self.probes[index]
            .get_or_create(&[("code", code.to_string())])
            .inc();
    }

    /// Service ports without an endpoint here, by `internal` or `external`.
    pub fn no_local(&self, policy: &'static str, ip_family: &'static str, ports: i64) {
        let label = [
            ("traffic_policy", policy.to_owned()),
            ("ip_family", ip_family.to_owned()),
        ];
        self.no_local.get_or_create(&label).set(ports);
    }

    /// A pass over a table of flows ended.
    pub fn swept(&self, ip_family: &'static str, took: Duration, removed: u64) {
        self.sweeps
            .get_or_create(&family(ip_family))
            .observe(took.as_secs_f64());
        self.swept.get_or_create(&family(ip_family)).inc_by(removed);
    }

    /// A request of the CNI plugin was answered, with a code if it was refused.
    pub fn cni(&self, command: &'static str, code: u32, took: Duration) {
        let label = [("command", command.to_owned()), ("code", code.to_string())];
        self.cni.get_or_create(&label).inc();
        if command == "ADD" && code == 0 {
            self.cni_add.observe(took.as_secs_f64());
        }
    }

    /// A pod started without the CNI plugin, though that is installed.
    pub fn cni_without(&self) {
        self.cni_without.inc();
    }

    /// Addresses of domain names: those that are known, and those that were left out.
    pub fn domains(&self, known: usize, refused: u64) {
        self.domains.set(known as i64);
        store(&self.domains_refused, refused);
    }

    /// The text of all metrics, with what was read just now.
    pub fn text(&self, sample: &Sample, form: Form) -> String {
        for (name, entries, capacity) in &sample.maps {
            let label = [("map", name.clone())];
            self.map_entries.get_or_create(&label).set(*entries as i64);
            self.map_capacity
                .get_or_create(&label)
                .set(*capacity as i64);
            let pressure = *entries as f64 / (*capacity).max(1) as f64;
            self.map_pressure.get_or_create(&label).set(pressure);
        }
        for (counters, label, counts) in [
            (&self.drops, "reason", &sample.drops),
            (&self.errors_held, "reason", &sample.errors_held),
            (&self.flow_events, "outcome", &sample.flow_events),
        ] {
            for (name, count) in counts {
                let counter = counters.get_or_create(&[(label, (*name).to_owned())]);
                store(&counter, *count);
            }
        }
        for ([direction, flow], count) in &sample.audits {
            let labels = [("direction", *direction), ("flow", *flow)];
            store(&self.audits.get_or_create(&labels), *count);
        }
        self.half_open.set(sample.half_open as i64);
        self.source.read(&sample.kinds);
        self.process.read();
        let mut text = String::new();
        // A String takes all that is written to it.
        let _ = encode(&mut text, &self.registry);
        text::convert(text, form)
    }
}

/// Sets a counter to what the kernel or the engine has counted.
fn store(counter: &Counter, count: u64) {
    counter.inner().store(count, Ordering::Relaxed);
}

fn family(name: &'static str) -> Label {
    [("ip_family", name.to_owned())]
}

fn sync_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

fn syncs() -> Histograms {
    Family::new_with_constructor(sync_histogram)
}

fn programming() -> Histogram {
    let seconds = linear_buckets(1.0, 1.0, 59);
    let more = linear_buckets(60.0, 5.0, 12).chain(linear_buckets(120.0, 30.0, 7));
    Histogram::new([0.25, 0.5].into_iter().chain(seconds).chain(more))
}

struct Registrar<'a>(&'a mut Registry);

impl Registrar<'_> {
    fn process(&mut self) -> process::Process {
        process::Process::register(self.0)
    }

    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn changes(&mut self, name: &str, kind: &str) -> Changes {
        let prefix = format!("kubeproxy_sync_proxy_rules_{name}_changes");
        Changes {
            total: self.add(
                &prefix,
                &format!("Changes of {kind} objects"),
                Counter::default(),
            ),
            pending: self.add(
                &format!("{prefix}_pending"),
                &format!("Changes of {kind} objects that are not in force"),
                Gauge::default(),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
