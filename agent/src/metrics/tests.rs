use super::*;

/// kube-proxy 1.36's metrics in the mode nftables, and those that all modes have (pkg/proxy/metrics).
const KUBE_PROXY: [&str; 17] = [
    "kubeproxy_sync_proxy_rules_duration_seconds_bucket",
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    "kubeproxy_sync_proxy_rules_endpoint_changes_total",
    "kubeproxy_sync_proxy_rules_service_changes_pending",
    "kubeproxy_sync_proxy_rules_service_changes_total",
    "kubeproxy_proxy_healthz_total",
    "kubeproxy_proxy_livez_total",
    "kubeproxy_network_programming_duration_seconds_bucket",
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
    "kubeproxy_sync_full_proxy_rules_duration_seconds_bucket",
    "kubeproxy_sync_partial_proxy_rules_duration_seconds_bucket",
    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
    "kubeproxy_conntrack_reconciler_sync_duration_seconds_bucket",
    "kubeproxy_conntrack_reconciler_deleted_entries_total",
    "process_resident_memory_bytes",
];

fn filled() -> Metrics {
    let metrics = Metrics::default();
    metrics.changed(Changed::Service, 5.0);
    metrics.changed(Changed::Endpoints, 5.0);
    metrics.synced(Duration::from_millis(3), true, 6.0);
    metrics.programmed("IPv6", 2.5);
    metrics.no_local("external", "IPv4", 2);
    metrics.plans(1, 4, true, true);
    metrics.probed(Probe::Healthz, 503);
    metrics
}

#[test]
fn kube_proxys_names_are_there() {
    let text = filled().text(&Sample::default(), Form::Classic);
    for name in KUBE_PROXY {
        let starts = |line: &str| line.starts_with(name);
        assert!(text.lines().any(starts), "{name} is missing in\n{text}");
    }
    for line in [
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.004\",ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv6\"} 6.0",
        "kubeproxy_sync_proxy_rules_service_changes_total 1",
        "kubeproxy_sync_proxy_rules_service_changes_pending 0",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\",ip_family=\"IPv4\"} 2",
        "# TYPE kubeproxy_sync_proxy_rules_service_changes_total counter",
        "# TYPE sluice_build_info gauge",
        "sluice_plans_total{result=\"failed\"} 4",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
    assert!(!text.contains("EOF"));
}

#[test]
fn who_asks_for_open_metrics_gets_it() {
    let text = filled().text(
        &Sample::default(),
        form("application/openmetrics-text;version=1.0.0"),
    );
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE kubeproxy_proxy_healthz counter"));
    assert_eq!(form("text/plain"), Form::Classic);
    assert_eq!(form(""), Form::Classic);
}

#[test]
fn a_sample_shows_pressure_and_drops() {
    let sample = Sample {
        maps: vec![("ct4".to_owned(), 25, 100)],
        drops: [("no-backend", 7)].into(),
        errors_held: [("too-big", 5)].into(),
        flow_events: [("sampled-out", 4)].into(),
        audits: vec![(["ingress", "live"], 6)],
        half_open: 3,
        ..Sample::default()
    };
    let text = filled().text(&sample, Form::Classic);
    for line in [
        "sluice_map_entries{map=\"ct4\"} 25",
        "sluice_map_capacity{map=\"ct4\"} 100",
        "sluice_map_pressure{map=\"ct4\"} 0.25",
        "sluice_drops_total{reason=\"no-backend\"} 7",
        "sluice_icmp_errors_held_total{reason=\"too-big\"} 5",
        "sluice_audit_flows_total{direction=\"ingress\",flow=\"live\"} 6",
        "sluice_flow_events_total{outcome=\"sampled-out\"} 4",
        "sluice_conntrack_half_open 3",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
}

fn following() -> WatchedKind {
    WatchedKind {
        kind: "Service".to_owned(),
        state: "following".to_owned(),
        synced: true,
        objects: 7,
        lists: 2,
        events: 9,
        failures: 3,
        bad_objects: 1,
        ..WatchedKind::default()
    }
}

#[test]
fn each_kind_of_the_source_has_its_metrics() {
    let sample = Sample {
        kinds: vec![following()],
        ..Sample::default()
    };
    let text = Metrics::default().text(&sample, Form::Classic);
    for line in [
        "sluice_source_state{kind=\"Service\",state=\"following\"} 1",
        "sluice_source_state{kind=\"Service\",state=\"retrying\"} 0",
        "sluice_source_synced{kind=\"Service\"} 1",
        "sluice_source_objects{kind=\"Service\"} 7",
        "sluice_source_bad_objects{kind=\"Service\"} 1",
        "sluice_source_events_total{kind=\"Service\"} 9",
        "sluice_source_lists_total{kind=\"Service\"} 2",
        "sluice_source_watch_failures_total{kind=\"Service\"} 3",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
}

#[test]
fn alerts_and_the_dashboard_ask_for_metrics_that_exist() {
    let sample = Sample {
        maps: vec![("ct4".to_owned(), 1, 2)],
        kinds: vec![following()],
        drops: [("conntrack-full", 1)].into(),
        ..Sample::default()
    };
    let text = filled().text(&sample, Form::Classic);
    for file in [
        include_str!("../../../deploy/monitoring/alerts.yaml"),
        include_str!("../../../deploy/monitoring/dashboard.json"),
    ] {
        let words = file.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_metric = |word: &&str| {
            ["sluice_", "kubeproxy_", "process_"]
                .iter()
                .any(|p| word.starts_with(p))
        };
        let mut asked = 0;
        for metric in words.filter(is_metric) {
            let has = |line: &str| {
                let rest = line.strip_prefix(metric);
                rest.is_some_and(|rest| rest.starts_with([' ', '{']))
            };
            assert!(text.lines().any(has), "{metric} is missing in\n{text}");
            asked += 1;
        }
        assert!(asked >= 7, "{asked} metrics in\n{file}");
    }
}
