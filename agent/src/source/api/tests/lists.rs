//! Full lists: streams, pages, and what they sweep.

use super::*;

#[tokio::test]
async fn a_stream_delivers_all_objects_and_then_their_changes() {
    let mut world = World::new(|target| {
        (is_namespaces(target) && is_stream(target)).then(|| {
            Answer::Open(vec![
                event("ADDED", "a", 1) + &event("ADDED", "b", 2) + &bookmark(3, true),
                event("MODIFIED", "a", 4),
                event("DELETED", "b", 5) + &event("ADDED", "c", 6),
            ])
        })
    })
    .await;
    world
        .until("the last change", |w| w.namespaces() == ["a@4", "c@6"])
        .await;
    world.until("in sync", World::is_in_sync).await;
    let of_namespaces: Vec<_> = world
        .changes
        .iter()
        .filter(|change| change.contains("Namespace"))
        .collect();
    let expected = [
        "+Namespace a@1",
        "+Namespace b@2",
        "+Namespace a@4",
        "-Namespace b",
        "+Namespace c@6",
    ];
    assert_eq!(of_namespaces, expected);
}

#[tokio::test]
async fn objects_are_asked_for_as_kube_proxy_asks() {
    let mut world = World::new(|_| None).await;
    world.until("in sync", World::is_in_sync).await;
    let labels = "labelSelector=%21service.kubernetes.io%2Fheadless%2C%21service.kubernetes.io%2Fservice-proxy-name";
    let services = world.server.requests("/api/v1/services").remove(0);
    assert!(
        services.contains(labels) && services.contains("fieldSelector=spec.clusterIP%21%3DNone")
    );
    let slices = world
        .server
        .requests("/apis/discovery.k8s.io/v1/endpointslices")
        .remove(0);
    assert!(slices.contains(labels));
}

#[tokio::test]
async fn a_server_that_refuses_to_stream_is_asked_for_pages() {
    for code in [400, 405, 422] {
        let mut world = World::new(move |target| {
            if !is_namespaces(target) {
                return None;
            }
            Some(match target {
                _ if is_stream(target) => Answer::refused(code),
                _ if target.contains("watch=1") => Answer::Open(vec![event("ADDED", "d", 12)]),
                _ if target.contains("continue=next") => Answer::good(list(10, "", &["c"])),
                _ => Answer::good(list(10, "next", &["a", "b"])),
            })
        })
        .await;
        world
            .until("both pages and a change", |w| {
                w.namespaces() == ["a@10", "b@10", "c@10", "d@12"]
            })
            .await;
        world.until("in sync", World::is_in_sync).await;
        let requests = world.server.requests("/api/v1/namespaces");
        assert_eq!(resumed_at(&requests[3]), Some("10"), "{requests:#?}");
    }
}

#[tokio::test]
async fn a_server_that_takes_the_stream_for_a_common_watch_is_asked_for_pages() {
    let mut world = World::new(|target| {
        if !is_namespaces(target) {
            return None;
        }
        Some(match target {
            _ if is_stream(target) => Answer::Open(vec![event("ADDED", "a", 3)]),
            _ if target.contains("watch=1") => Answer::Open(Vec::new()),
            _ => Answer::good(list(10, "", &["a"])),
        })
    })
    .await;
    world.until("in sync", World::is_in_sync).await;
    assert_eq!(world.namespaces(), ["a@10"]);
}

#[tokio::test]
async fn a_server_that_does_not_know_the_field_selector_is_asked_without() {
    let mut world = World::new(|target| {
        let refused = target.contains("fieldSelector");
        refused.then(|| Answer::refused(400))
    })
    .await;
    world.until("in sync", World::is_in_sync).await;
    let last = world
        .server
        .requests("/api/v1/services")
        .pop()
        .expect("a request");
    assert!(!last.contains("fieldSelector") && last.contains("labelSelector"));
}

#[tokio::test]
async fn a_list_that_expires_between_two_pages_begins_anew() {
    let mut first = true;
    let mut world = World::new(move |target| {
        if !is_namespaces(target) {
            return None;
        }
        Some(match target {
            _ if is_stream(target) => Answer::refused(422),
            _ if target.contains("watch=1") => Answer::Open(Vec::new()),
            _ if target.contains("continue=old") => Answer::refused(410),
            _ if std::mem::take(&mut first) => Answer::good(list(10, "old", &["a", "b"])),
            _ => Answer::good(list(20, "", &["b", "c"])),
        })
    })
    .await;
    world.until("in sync", World::is_in_sync).await;
    assert_eq!(world.namespaces(), ["b@20", "c@20"]);
}

#[tokio::test]
async fn a_list_cut_half_way_takes_nothing_away_and_is_not_in_sync() {
    let mut lists = 0;
    let mut world = World::new(move |target| {
        if !is_namespaces(target) {
            return None;
        }
        lists += 1;
        Some(match lists {
            1 => Answer::Ended(vec![
                event("ADDED", "a", 1) + &event("ADDED", "b", 2) + &bookmark(3, true),
            ]),
            // The watch after it.
            2 => Answer::Open(vec![error_event(410)]),
            3 => Answer::Broken(vec![event("ADDED", "b", 2)]),
            4 => Answer::Ended(vec![event("ADDED", "b", 2)]),
            _ => Answer::Open(vec![event("ADDED", "b", 2), bookmark(9, true)]),
        })
    })
    .await;
    world
        .until("the sweep", |w| w.namespaces() == ["b@2"])
        .await;
    let requests = world.server.requests("/api/v1/namespaces").len();
    assert!(requests >= 5, "swept after {requests} requests");
    assert_eq!(
        world
            .changes
            .iter()
            .filter(|change| change.starts_with('-'))
            .count(),
        1
    );
}

#[tokio::test]
async fn later_lists_never_take_in_sync_back() {
    let mut world = World::new(|target| {
        is_namespaces(target).then(|| {
            Answer::Open(vec![
                event("ADDED", "a", 1) + &bookmark(3, true) + &error_event(410),
            ])
        })
    })
    .await;
    world.until("in sync", World::is_in_sync).await;
    world
        .until("three lists", |w| {
            w.server.requests("/api/v1/namespaces").len() >= 3
        })
        .await;
    let count = world
        .in_sync
        .iter()
        .filter(|kind| **kind == ModelKind::Namespace)
        .count();
    assert_eq!((count, world.in_sync.len()), (1, 8));
}

#[tokio::test]
async fn a_kind_that_is_not_served_is_empty_and_appears_when_it_is() {
    let (on, is_on) = tokio::sync::watch::channel(false);
    let group = "/apis/gateway.networking.k8s.io";
    let mut world = World::new(move |target| {
        if !target.starts_with(group) || !*is_on.borrow() {
            return None;
        }
        Some(match target.strip_prefix(group)? {
            "" => Answer::good(r#"{"versions":[{"version":"v1beta1"}]}"#.to_owned()),
            "/v1beta1" => Answer::good(
                r#"{"resources":[{"name":"httproutes/status","kind":"HTTPRoute"},{"name":"httproutes","kind":"HTTPRoute"}]}"#
                    .to_owned(),
            ),
            other if other.starts_with("/v1beta1/httproutes?") && is_stream(other) => {
                let route = r#"{"type":"ADDED","object":{"metadata":{"name":"r","namespace":"n","resourceVersion":"5"},"spec":{}}}"#;
                Answer::Open(vec![format!("{route}\n"), bookmark(6, true)])
            }
            other if other.contains("watch=1") => Answer::Open(Vec::new()),
            _ => Answer::refused(404),
        })
    })
    .await;
    world.until("in sync", World::is_in_sync).await;
    assert_eq!(world.state(Kind::HttpRoute).phase, Phase::NotServed);
    assert!(world.state(Kind::HttpRoute).failure.is_none());
    on.send_replace(true);
    world
        .until("the route", |w| w.objects.contains_key("HTTPRoute n/r"))
        .await;
    assert_eq!(world.state(Kind::TcpRoute).phase, Phase::NotServed);
    on.send_replace(false);
    // The watch ends by itself, and then the kind is gone.
    world
        .until("the route is gone", |w| {
            !w.objects.contains_key("HTTPRoute n/r")
        })
        .await;
}
