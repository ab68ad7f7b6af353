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
    let metrics = Metrics::new();
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
        half_open: 3,
    };
    let text = filled().text(&sample, Form::Classic);
    for line in [
        "sluice_map_entries{map=\"ct4\"} 25",
        "sluice_map_capacity{map=\"ct4\"} 100",
        "sluice_map_pressure{map=\"ct4\"} 0.25",
        "sluice_drops_total{reason=\"no-backend\"} 7",
        "sluice_conntrack_half_open 3",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing in\n{text}"
        );
    }
}
