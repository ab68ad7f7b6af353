//! `sessionAffinity: ClientIP`.

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::wait;

use crate::world::{PATIENCE, World, at, vip};

#[test]
fn a_client_stays_with_its_pod_as_long_as_there_is_one() {
    let mut world = World::new();
    for (name, node) in [("web-1", 1), ("web-2", 2), ("web-3", 1), ("web-4", 2)] {
        world.pod(name, node, &[("app", "web")]);
    }
    let service = ServiceManifest::new("web")
        .cluster_ips(vip(1).both())
        .port("http", 80, 8080);
    world.apply(&service.with("sessionAffinity", json!("ClientIP")));
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            let tally = client.load([to], 40);
            let names: Vec<_> = tally.by_name.keys().cloned().collect();
            assert_eq!(
                (names.len(), tally.failures()),
                (1, 0),
                "{} to {to}: {names:?}",
                client.name
            );
        }
    }
    let (client, to) = (world.client(1), at(vip(1), 80)[0]);
    let first = client.get(to).unwrap().name;
    world.plane.set_ready(&first, false).unwrap();
    let other = wait::until(PATIENCE, "the client to get another pod", || {
        let name = client.get(to).map_err(|failure| failure.to_string())?.name;
        if name == first {
            Err(format!("it is still {name}"))
        } else {
            Ok(name)
        }
    });
    let tally = client.load([to], 40);
    let names: Vec<_> = tally.by_name.keys().cloned().collect();
    assert_eq!(names, [other.unwrap()]);
}
