//! Weighted routes, by every kind of object that gives them.

use sluice_lab::wait;
use sluice_lab::workload::client::Connection;

use crate::world::{Client, PATIENCE, REQUEST, World, at, vip};

/// One pod of the version `v1` and two of `v2`, behind one Service and one for each.
fn world() -> World {
    let mut world = World::new();
    for (name, node, version) in [("a", 1, "v1"), ("b", 2, "v2"), ("c", 1, "v2")] {
        let mut run = crate::world::pod(name, node, &[("app", "web"), ("version", version)]);
        run.server.version = version.to_owned();
        world.plane.run(run).unwrap();
    }
    world.service("web", vip(1));
    for (number, version) in [(2, "v1"), (3, "v2")] {
        let service = sluice_lab::kube::objects::ServiceManifest::new(&format!("web-{version}"));
        let service = service
            .cluster_ips(vip(number).both())
            .port("http", 80, 8080);
        world.apply(&service.select("app", "web").select("version", version));
    }
    world.await_service(vip(1), 80);
    world
}

fn virtual_service(one: u32, two: u32) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web}}
spec:
  hosts: [web]
  http:
  - route:
    - {{destination: {{host: web, subset: v1}}, weight: {one}}}
    - {{destination: {{host: web, subset: v2}}, weight: {two}}}
"
    )
}

fn gateway_route(kind: &str, one: u32, two: u32) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: web}}
spec:
  parentRefs: [{{group: '', kind: Service, name: web, port: 80}}]
  rules:
  - backendRefs:
    - {{name: web-v1, port: 80, weight: {one}}}
    - {{name: web-v2, port: 80, weight: {two}}}
"
    )
}

/// Waits for a share of `v1` near the wanted one, then measures it.
fn assert_share(client: &Client, share: f64) {
    let to = at(vip(1), 80);
    wait::until(
        PATIENCE,
        &format!("a share near {share} for {}", client.name),
        || {
            let seen = client.load(to, 40).share("v1");
            if (seen - share).abs() <= 0.15 {
                Ok(())
            } else {
                Err(format!("it was {seen}"))
            }
        },
    )
    .unwrap();
    let tally = client.load(to, 800);
    let seen = tally.share("v1");
    assert_eq!(
        tally.failures(),
        0,
        "{}: {}",
        client.name,
        tally.failure_kinds()
    );
    assert!(
        (seen - share).abs() <= 0.03,
        "{}: {seen} for {share}",
        client.name
    );
    // None of a class without weight.
    assert!(share != 0.0 || seen == 0.0, "{}: {seen}", client.name);
}

#[test]
fn a_virtual_service_splits_by_weight_and_not_by_pods() {
    let mut world = world();
    for (one, two) in [(90, 10), (50, 50), (0, 100)] {
        world.yaml(&virtual_service(one, two));
        for client in world.everywhere() {
            assert_share(&client, f64::from(one) / 100.0);
        }
    }
    world.plane.delete_object("VirtualService", "web").unwrap();
    let share = 1.0 / 3.0;
    let client = world.client(1);
    wait::until_true(PATIENCE, "the pods to get even parts again", || {
        (client.load(at(vip(1), 80), 200).share("v1") - share).abs() < 0.15
    })
    .unwrap();
}

#[test]
fn gateway_routes_split_by_weight() {
    let mut world = world();
    for kind in ["HTTPRoute", "TCPRoute"] {
        world.yaml(&gateway_route(kind, 80, 20));
        assert_share(&world.client(1), 0.8);
        assert_share(&world.host(2), 0.8);
        world.yaml(&gateway_route(kind, 1, 9));
        assert_share(&world.client(2), 0.1);
        world.plane.delete_object(kind, "web").unwrap();
    }
}

#[test]
fn a_class_without_endpoints_fails_its_share() {
    let mut world = world();
    world.yaml(&gateway_route("HTTPRoute", 50, 50));
    let client = world.client(1);
    assert_share(&client, 0.5);
    world.plane.set_ready("a", false).unwrap();
    wait::until_true(PATIENCE, "half of the connections to be refused", || {
        let tally = client.load(at(vip(1), 80), 100);
        let refused = tally
            .failed
            .iter()
            .filter(|failed| failed.failure.is_refused())
            .count();
        tally.share("v2") == 1.0 && (35..=65).contains(&refused)
    })
    .unwrap();
}

#[test]
fn an_open_connection_keeps_its_version_when_weights_change() {
    let mut world = world();
    world.yaml(&virtual_service(100, 0));
    let clients = world.everywhere();
    clients.iter().for_each(|client| assert_share(client, 1.0));
    let mut connections = Vec::new();
    for client in &clients {
        for to in at(vip(1), 80) {
            let open = client
                .netns
                .run(|| Connection::open(None, to, REQUEST))
                .unwrap();
            connections.push(open);
        }
    }
    for connection in &mut connections {
        assert_eq!(connection.get("/", false).unwrap().version, "v1");
    }
    world.yaml(&virtual_service(0, 100));
    clients.iter().for_each(|client| assert_share(client, 0.0));
    for connection in &mut connections {
        assert_eq!(connection.get("/", false).unwrap().version, "v1");
    }
}
