//! Faults between the agent and a real API server.

use std::fs;

use super::proxy::Mode;
use super::*;

fn namespace(server: &ApiServer, name: &str) -> String {
    server.kubectl(&["create", "namespace", name]);
    format!("Namespace {name}")
}

#[tokio::test]
async fn connections_that_are_cut_reset_or_lead_nowhere_are_made_anew_and_nothing_is_lost() {
    let server = ApiServer::start(&[]);
    let proxy = Proxy::start(server.address()).await;
    let mut world = World::synced(server.access(proxy.address())).await;
    for (name, mode, recovers) in [
        ("reset", Mode::Reset, Duration::from_secs(12)),
        ("closed", Mode::Close, Duration::from_secs(12)),
        // Two pings, and the pause.
        ("black-hole", Mode::BlackHole, Duration::from_secs(30)),
    ] {
        let before = proxy.connections();
        proxy.set(mode);
        let object = namespace(&server, name);
        world
            .until("a failure", |world| {
                let states = world.api.states().snapshot();
                states
                    .values()
                    .filter(|state| state.failure.is_some())
                    .count()
                    >= 6
            })
            .await;
        assert!(!world.objects.contains(&object));
        let states = world.api.states().snapshot();
        let failures: BTreeSet<_> = states
            .into_values()
            .filter_map(|state| state.failure)
            .collect();
        eprintln!("{name}: {failures:?}");
        proxy.set(Mode::Pass);
        let took = world.has(&object).await;
        eprintln!("{name}: {took:?} from its end to the missed change");
        assert!(took < recovers, "{name}: {took:?}");
        let made = proxy.connections() - before;
        assert!(made < 60, "{made} connections because of {name}");
    }
    assert_eq!(world.deleted, [] as [&str; 0]);
    // Resumed, not listed again.
    assert!(
        world
            .api
            .states()
            .snapshot()
            .values()
            .all(|state| state.lists <= 1)
    );
}

#[tokio::test]
async fn all_kinds_share_one_connection() {
    let server = ApiServer::start(&[]);
    let proxy = Proxy::start(server.address()).await;
    let world = World::synced(server.access(proxy.address())).await;
    assert_eq!(proxy.connections(), 1);
    drop(world);
}

#[tokio::test]
async fn an_api_server_that_restarts_is_followed_again_and_takes_nothing_away() {
    let mut server = ApiServer::start(&[]);
    let first = namespace(&server, "first");
    let mut world = World::synced(server.access(server.address())).await;
    server.stop();
    world
        .until("a failure", |world| world.failures(Kind::Namespace) > 3)
        .await;
    server.run();
    let second = namespace(&server, "second");
    world.has(&second).await;
    assert!(world.objects.contains(&first));
    assert_eq!(world.deleted, [] as [&str; 0]);
}

#[tokio::test]
async fn a_server_that_cannot_stream_lists_is_listed_by_pages() {
    let server = ApiServer::start(&["--feature-gates=WatchList=false"]);
    let earlier = namespace(&server, "earlier");
    let mut world = World::synced(server.access(server.address())).await;
    assert!(world.objects.contains(&earlier));
    let later = namespace(&server, "later");
    world.has(&later).await;
}

#[tokio::test]
async fn the_servers_own_addresses_are_tried_when_the_configured_one_does_not_answer() {
    let server = ApiServer::start(&[]);
    let proxy = Proxy::start(server.address()).await;
    let port = server.address().port();
    // A slice may not name a loopback address: the server is made to be at one of this machine's.
    server.apply(&format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: kubernetes, namespace: default, \
         labels: {{kubernetes.io/service-name: kubernetes}}}}, addressType: IPv4, \
         endpoints: [{{addresses: [192.0.2.77]}}], ports: [{{name: https, port: {port}}}]}}"
    ));
    let mut world = World::synced(server.access(proxy.address())).await;
    assert_eq!(
        world.api.link().addresses().learnt(),
        [([192, 0, 2, 77], port).into()]
    );
    world.api.link().addresses().learn(vec![server.address()]);
    proxy.set(Mode::BlackHole);
    let object = namespace(&server, "beside");
    let took = world.has(&object).await;
    eprintln!("{took:?} to reach the server at its own address");
    assert_eq!(
        world.api.link().addresses().connected(),
        Some(server.address())
    );
}

#[tokio::test]
async fn a_token_that_is_renewed_on_disk_is_used_when_the_old_one_is_refused() {
    let server = ApiServer::start(&[]);
    fs::write(server.dir().join("token"), "expired").expect("a token");
    let mut world = World::new(server.access(server.address())).await;
    // A connection may fail before it is refused.
    let is_refused = |world: &World| {
        let states = world.api.states().snapshot();
        let failure = states
            .get(&Kind::Pod)
            .and_then(|state| state.failure.as_deref());
        failure.is_some_and(|text| text.contains("401") && text.contains("renew it"))
    };
    world.until("a refusal", is_refused).await;
    fs::write(server.dir().join("token"), "good").expect("a token");
    let took = world.until("in sync", |world| world.in_sync == 7).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}
