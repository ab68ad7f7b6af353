//! What kube-proxy answers over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_lab::kube::objects::{self, SliceManifest};
use sluice_lab::topology::Family;
use sluice_lab::wait;

use crate::world::{Client, PATIENCE, REQUEST, TCP, World, at};

const HEALTHZ: u16 = 10256;
const METRICS: u16 = 10249;
const CHECK: u16 = 31_987;

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }
}

fn ask(client: &Client, to: SocketAddr, path: &str) -> std::io::Result<Answer> {
    client.netns.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, REQUEST)?;
        stream.set_read_timeout(Some(REQUEST))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(Answer {
            status: status.unwrap_or_default(),
            head: head.to_owned(),
            body: body.to_owned(),
        })
    })
}

/// What a node's agent tells of itself in `/metrics`.
pub fn metrics(host: &Client) -> String {
    await_status(host, loopback(METRICS), "/metrics", 200).body
}

/// The value of a metric without labels, of the agent on a host.
pub fn metric(host: &Client, name: &str) -> Option<u64> {
    let text = metrics(host);
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn await_status(client: &Client, to: SocketAddr, path: &str, status: u16) -> Answer {
    let what = format!("{to}{path} to answer {} with {status}", client.name);
    let answer = || match ask(client, to, path) {
        Ok(answer) if answer.status == status => Ok(answer),
        other => Err(format!("{other:?}")),
    };
    wait::until(PATIENCE, &what, answer).unwrap()
}

#[test]
fn health_is_answered_to_everyone_until_the_node_leaves() {
    let world = World::new();
    let outside = world.outside();
    for to in world.node_at(1, HEALTHZ) {
        let body = await_status(&outside, to, "/healthz", 200).json();
        assert_eq!(
            (&body["healthy"], &body["nodeEligible"]),
            (&json!(true), &json!(true))
        );
        assert!(body["lastUpdated"].is_string() && body["currentTime"].is_string());
        assert_eq!(body["status"]["IPv6"]["healthy"], true);
        assert_eq!(ask(&outside, to, "/other").unwrap().status, 404);
    }
    let taint = json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
    let nodes = world.plane.cluster().nodes().iter();
    let mut cluster = vec![objects::namespace("default", &[])];
    cluster.extend(nodes.map(|node| objects::node(node)));
    cluster[1]["spec"]["taints"] = taint;
    world.plane.manifests.write("cluster", &cluster).unwrap();
    let [v4, v6] = world.node_at(1, HEALTHZ);
    let body = await_status(&outside, v4, "/healthz", 503).json();
    assert_eq!(
        (&body["healthy"], &body["nodeEligible"]),
        (&json!(true), &json!(false))
    );
    let live = await_status(&outside, v6, "/livez", 200).json();
    assert_eq!(live["healthy"], true);
    let [other, _] = world.node_at(2, HEALTHZ);
    await_status(&outside, other, "/healthz", 200);
}

#[test]
fn metrics_have_kube_proxys_names_and_are_for_the_node_alone() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", crate::world::vip(1));
    world.await_service(crate::world::vip(1), 80);
    let host = world.host(1);
    let text = await_status(&host, loopback(METRICS), "/metrics", 200).body;
    for name in [
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "kubeproxy_sync_proxy_rules_service_changes_total",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        "kubeproxy_network_programming_duration_seconds_count",
        "kubeproxy_proxy_healthz_total",
        "kubeproxy_proxy_livez_total",
        "kubeproxy_conntrack_reconciler_deleted_entries_total",
        "process_resident_memory_bytes",
        "sluice_event_to_map_seconds_count",
        "sluice_map_pressure{map=\"services4\"}",
        "sluice_map_entries{map=\"ct6\"}",
        "sluice_map_capacity{map=\"affinity4\"}",
        "sluice_build_info",
    ] {
        assert!(
            text.contains(&format!("\n{name}")),
            "{name} is missing in\n{text}"
        );
    }
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        number.unwrap_or_else(|| panic!("{name} in\n{text}"))
    };
    assert!(value("kubeproxy_sync_proxy_rules_service_changes_total") >= 1.0);
    assert!(value("sluice_map_entries{map=\"services4\"}") >= 2.0);
    assert!(value("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}") > 1.6e9);
    let mode = ask(&host, loopback(METRICS), "/proxyMode").unwrap();
    assert_eq!((mode.status, mode.body.as_str()), (200, "sluice"));
    let config = ask(&host, loopback(METRICS), "/configz").unwrap().json();
    assert_eq!(
        config["kubeproxy.config.k8s.io"]["healthzBindAddress"],
        "0.0.0.0:10256"
    );
    let outside = world.outside();
    for to in world.node_at(1, METRICS) {
        assert!(
            ask(&outside, to, "/metrics").is_err(),
            "{to} answers outside"
        );
    }
}

#[test]
fn a_load_balancer_learns_which_nodes_have_ready_endpoints() {
    let mut world = World::new();
    world.pod("web", 1, &[("app", "web")]);
    let service = |check: u16, policy: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\nspec:\n  \
             type: LoadBalancer\n  externalTrafficPolicy: {policy}\n  healthCheckNodePort: {check}\n  \
             selector: {{app: web}}\n  clusterIPs: [10.96.1.1, 'fd96::1:1']\n  clusterIP: 10.96.1.1\n  \
             ipFamilies: [IPv4, IPv6]\n  ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]\n"
        )
    };
    world
        .plane
        .manifests
        .write_text("service-web", &service(CHECK, "Local"))
        .unwrap();
    let (outside, host) = (world.outside(), world.host(1).addrs);
    for to in world.node_at(1, CHECK) {
        let answer = await_status(&outside, to, "/any/path", 200);
        assert_eq!(answer.header("X-Load-Balancing-Endpoint-Weight"), Some("1"));
        let expected = json!({
            "service": {"namespace": "default", "name": "web"},
            "localEndpoints": 1,
            "serviceProxyHealthy": true,
        });
        assert_eq!(answer.json(), expected);
    }
    for to in world.node_at(2, CHECK) {
        let answer = await_status(&outside, to, "/", 503);
        assert_eq!(answer.json()["localEndpoints"], 0);
        assert_eq!(answer.header("X-Load-Balancing-Endpoint-Weight"), Some("0"));
    }
    world.plane.set_ready("web", false).unwrap();
    await_status(&outside, world.node_at(1, CHECK)[0], "/", 503);
    world.plane.set_ready("web", true).unwrap();
    await_status(&outside, world.node_at(1, CHECK)[1], "/", 200);
    // An endpoint that terminates serves if there is no other, and is not counted.
    let leaving = json!({ "conditions": { "ready": false, "serving": true, "terminating": true } });
    for family in Family::ALL {
        let slice = SliceManifest::new("web", family).port("", TCP);
        let slice = slice.pod(world.plane.pod("web"), &leaving);
        world.plane.apply(&slice.object()).unwrap();
    }
    for (check, to) in at(host, CHECK).into_iter().zip(at(host, 30_080)) {
        await_status(&outside, check, "/", 503);
        outside.eventually_gets(to);
    }
    for name in ["web-ipv4", "web-ipv6"] {
        world.plane.delete_object("EndpointSlice", name).unwrap();
    }
    await_status(&outside, world.node_at(1, CHECK)[1], "/", 200);
    world
        .plane
        .manifests
        .write_text("service-web", &service(CHECK + 1, "Local"))
        .unwrap();
    await_status(&outside, world.node_at(1, CHECK + 1)[0], "/", 200);
    await_closed(&outside, world.node_at(1, CHECK));
    world
        .plane
        .manifests
        .write_text("service-web", &service(CHECK + 1, "Cluster"))
        .unwrap();
    await_closed(&outside, world.node_at(1, CHECK + 1));
}

fn await_closed(client: &Client, to: [SocketAddr; 2]) {
    for to in to {
        wait::until_true(PATIENCE, &format!("{to} to be closed"), || {
            ask(client, to, "/").is_err()
        })
        .unwrap();
    }
}

#[test]
fn a_taken_port_is_tried_again_and_the_dataplane_works_meanwhile() {
    let mut world = World::new();
    let host = world.host(1);
    world.plane.agents[0].terminate().unwrap();
    let taken = host
        .netns
        .run(|| TcpListener::bind(loopback(METRICS)).unwrap());
    world.plane.agents[0].start().unwrap();
    world.pod_on_each_node("web");
    world.service("web", crate::world::vip(1));
    world.await_service(crate::world::vip(1), 80);
    let log = std::fs::read_to_string(world.plane.agents[0].log()).unwrap();
    assert!(
        log.contains("listening for /metrics: it is tried again"),
        "{log}"
    );
    drop(taken);
    let patience = Duration::from_secs(20);
    wait::until_true(patience, "metrics once the port is free", || {
        ask(&host, loopback(METRICS), "/metrics").is_ok_and(|answer| answer.status == 200)
    })
    .unwrap();
    assert!(
        at(host.addrs, HEALTHZ)
            .iter()
            .all(|to| ask(&host, *to, "/livez").is_ok())
    );
}
