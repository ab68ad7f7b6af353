//! Services and nodes whose nature changes.

use serde_json::json;
use sluice_lab::kube::PodRun;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::topology::Dual;
use sluice_lab::wait;
use sluice_lab::workload::ServerSpec;
use sluice_lab::workload::udp::UdpClient;

use crate::world::{DROPPED, PATIENCE, TCP, World, at, pod, vip};

const PORT: u16 = 30080;

fn service() -> ServiceManifest {
    ServiceManifest::new("web").cluster_ips(vip(1).both())
}

fn node_port() -> ServiceManifest {
    service().node_port("http", 80, TCP, PORT)
}

fn cluster_ip() -> ServiceManifest {
    service().port("http", 80, TCP)
}

/// Everybody, also by node ports.
fn is_served(world: &World) {
    world.await_service(vip(1), 80);
    for client in world.everywhere().into_iter().chain([world.outside()]) {
        for node in [1, 2] {
            for to in world.node_at(node, PORT) {
                client.eventually_gets(to);
            }
        }
    }
}

fn node_ports_are_closed(world: &World) {
    for client in world.everywhere().into_iter().chain([world.outside()]) {
        for node in [1, 2] {
            for to in world.node_at(node, PORT) {
                client.await_refused(to);
            }
        }
    }
}

#[test]
fn what_a_services_new_type_does_not_have_is_gone() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    let gone = |world: &World| {
        node_ports_are_closed(world);
        for client in world.everywhere() {
            for to in at(vip(1), 80) {
                let failure = client.eventually_fails(to);
                assert!(!failure.is_refused(), "{} to {to}: {failure}", client.name);
            }
        }
    };
    world.apply(&node_port());
    is_served(&world);
    world.apply(&cluster_ip());
    node_ports_are_closed(&world);
    world.await_service(vip(1), 80);
    let alias = ServiceManifest::new("web")
        .with("type", json!("ExternalName"))
        .with("externalName", json!("web.example"));
    world.apply(&alias);
    gone(&world);
    world.apply(&node_port());
    is_served(&world);
    let headless = ServiceManifest::new("web").port("http", 80, TCP);
    world.apply(&headless.with("clusterIP", json!("None")));
    gone(&world);
}

#[test]
fn a_service_that_another_proxy_gets_is_gone() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&node_port());
    is_served(&world);
    world.apply(&node_port().label("service.kubernetes.io/service-proxy-name", "other"));
    node_ports_are_closed(&world);
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.eventually_fails(to);
        }
    }
    world.apply(&node_port());
    is_served(&world);
}

#[test]
fn node_ports_follow_a_nodes_addresses() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&node_port());
    is_served(&world);
    let more = Dual {
        v4: [172, 30, 0, 111].into(),
        v6: "fd30::111".parse().unwrap(),
    };
    let addresses = |verb: &str| {
        let lines = [
            format!("addr {verb} {}/24 dev eth0", more.v4),
            format!("addr {verb} {}/64 dev eth0", more.v6),
        ];
        let node = world.plane.cluster().node(1).netns();
        node.ip(lines).unwrap();
    };
    addresses("add");
    let clients = [
        world.client(1),
        world.host(1),
        world.client(2),
        world.outside(),
    ];
    for client in &clients {
        for to in at(more, PORT) {
            client.eventually_gets(to);
        }
    }
    addresses("del");
    for client in &clients {
        for to in at(more, PORT) {
            client.eventually_fails(to);
        }
    }
}

#[test]
fn node_ports_are_served_only_on_the_addresses_asked_for() {
    let mut world = World::with_args(&["--nodeport-addresses=172.30.0.0/24,fd30::/64"]);
    world.pod_on_each_node("web");
    world.apply(&node_port());
    for node in [1, 2] {
        let client = world.client(node);
        for to in world.node_at(node, PORT) {
            client.eventually_gets(to);
        }
        for to in at(world.plane.cluster().node(node).gateway(), PORT) {
            let failure = client.get(to).unwrap_err();
            assert!(failure.is_refused(), "{to}: {failure}");
        }
    }
}

#[test]
fn pods_that_are_not_ready_serve_where_that_is_asked_for() {
    let mut world = World::new();
    let server = ServerSpec {
        tcp: vec![TCP],
        not_ready: true,
        ..ServerSpec::default()
    };
    let run = pod("web", 2, &[("app", "web")]);
    world.plane.run(PodRun { server, ..run }).unwrap();
    world.apply(&cluster_ip());
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.await_refused(to);
        }
    }
    world.apply(&cluster_ip().with("publishNotReadyAddresses", json!(true)));
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.await_names(to, &["web"]);
        }
    }
}

#[test]
fn datagrams_go_on_when_the_last_pod_went_and_another_came() {
    let mut world = World::new();
    world.pod("old", 1, &[("app", "dns")]);
    world.service("dns", vip(1));
    world.await_service(vip(1), 80);
    let mut sockets = Vec::new();
    for client in world.pods() {
        for to in at(vip(1), 53) {
            let socket = client.netns.run(|| UdpClient::open(to, false)).unwrap();
            let ask = || socket.ask(DROPPED);
            let first = wait::until(PATIENCE, "an answer of the first pod", ask).unwrap();
            assert_eq!(first.name, "old");
            sockets.push((client.name.clone(), to, socket));
        }
    }
    world.plane.delete("old").unwrap();
    world.plane.await_deletions().unwrap();
    for (name, to, socket) in &sockets {
        let what = format!("{to} to be without a pod for {name}");
        wait::until_true(PATIENCE, &what, || socket.ask(DROPPED).is_err()).unwrap();
    }
    world.pod("new", 2, &[("app", "dns")]);
    for (name, to, socket) in &sockets {
        let what = format!("{to} to answer {name} again");
        let answer = wait::until(PATIENCE, &what, || socket.ask(DROPPED)).unwrap();
        assert_eq!(answer.name, "new", "{name} to {to}");
    }
}
