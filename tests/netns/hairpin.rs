//! A pod that reaches itself through its Service.

use crate::world::{World, at, vip};

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let mut world = World::new();
    for (node, number) in [(1, 1), (2, 2)] {
        let name = format!("self-{node}");
        world.pod(&name, node, &[("app", &name)]);
        world.service(&name, vip(number));
        world.await_service(vip(number), 80);
        let client = world.client_in(&name);
        for to in at(vip(number), 80) {
            for _ in 0..5 {
                let answer = client
                    .get(to)
                    .unwrap_or_else(|error| panic!("{name} to {to}: {error}"));
                assert_eq!(answer.name, name);
                // A packet from itself would not come back through its interface.
                assert!(
                    client
                        .addrs
                        .both()
                        .iter()
                        .all(|own| *own != answer.peer.ip())
                );
            }
        }
        for to in at(vip(number), 53) {
            let answer = client
                .ask(to)
                .unwrap_or_else(|error| panic!("{name} to {to}: {error}"));
            assert_eq!(answer.name, name);
        }
    }
}
