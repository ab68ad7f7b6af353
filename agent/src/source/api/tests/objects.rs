//! Objects that cannot be read, or are more than objects.

use super::*;

fn services(first: Vec<String>) -> impl FnMut(&str) -> Option<Answer> + Send + 'static {
    streamed("/api/v1/services?", first)
}

fn streamed(
    path: &'static str,
    first: Vec<String>,
) -> impl FnMut(&str) -> Option<Answer> + Send + 'static {
    move |target| {
        let mine = target.starts_with(path) && is_stream(target);
        mine.then(|| Answer::Open(first.clone()))
    }
}

fn service(ty: &str, name: &str, version: u32, spec: &str) -> String {
    format!(
        r#"{{"type":"{ty}","object":{{"metadata":{{"name":"{name}","namespace":"n","resourceVersion":"{version}"}},"spec":{spec}}}}}"#
    ) + "\n"
}

#[tokio::test]
async fn an_object_that_cannot_be_read_hurts_only_itself() {
    let good = r#"{"ports":[{"port":80}]}"#;
    let mut world = World::new(services(vec![
        service("ADDED", "before", 1, good),
        service("ADDED", "bad", 2, r#"{"ports":"eighty"}"#),
        service("ADDED", "after", 3, good),
        bookmark(4, true),
        service("MODIFIED", "after", 5, r#"{"ports":[{"port":{}}]}"#),
        service("ADDED", "last", 6, good),
    ]))
    .await;
    world
        .until("the last one", |w| w.objects.contains_key("Service n/last"))
        .await;
    world.until("in sync", World::is_in_sync).await;
    assert_eq!(
        world.objects["Service n/after"], "3",
        "the version before stays"
    );
    assert!(!world.objects.contains_key("Service n/bad"));
    let problems = world.api.problems();
    let of = |name: &str| {
        let found = problems
            .iter()
            .find(|p| p.object == Some(ObjectKey::new(Kind::Service, Some("n"), name)));
        found
            .unwrap_or_else(|| panic!("{name} in {problems:?}"))
            .to_string()
    };
    assert!(of("bad").contains("eighty"), "{}", of("bad"));
    assert!(
        of("after").contains("the version read before stays"),
        "{}",
        of("after")
    );
    let state = world.state(Kind::Service);
    assert_eq!((state.bad_events, state.failures), (2, 0));
}

#[tokio::test]
async fn a_bad_object_is_forgotten_when_it_is_corrected_or_deleted() {
    let bad = r#"{"ports":"x"}"#;
    let mut world = World::new(services(vec![
        bookmark(1, true),
        service("ADDED", "a", 2, bad) + &service("ADDED", "b", 3, bad),
        service("MODIFIED", "a", 4, "{}") + &service("DELETED", "b", 5, bad),
        service("ADDED", "end", 6, "{}"),
    ]))
    .await;
    world
        .until("the last one", |w| w.objects.contains_key("Service n/end"))
        .await;
    assert_eq!(world.objects["Service n/a"], "4");
    assert_eq!(world.api.problems(), []);
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_replaces_the_one_before() {
    let policy = |ty: &str, version: u32, spec: &str| {
        format!(
            r#"{{"type":"{ty}","object":{{"kind":"NetworkPolicy","metadata":{{"name":"p","namespace":"n","resourceVersion":"{version}"}},"spec":{spec}}}}}"#
        ) + "\n"
    };
    let lines = vec![
        bookmark(1, true),
        policy("ADDED", 2, r#"{"podSelector":{},"ingress":[{}]}"#),
        policy("MODIFIED", 3, r#"{"podSelector":{},"ingress":3}"#),
    ];
    let path = "/apis/networking.k8s.io/v1/networkpolicies?";
    let mut world = World::new(streamed(path, lines)).await;
    let closed = |world: &World| {
        let problems = world.api.problems();
        problems
            .iter()
            .any(|problem| problem.effect.contains("allows its pods nothing"))
    };
    world
        .until("the stand-in", |w| closed(w) && w.changes.len() == 2)
        .await;
}

#[tokio::test]
async fn a_bad_object_of_a_page_hurts_only_itself() {
    let mut world = World::new(|target| {
        if !target.starts_with("/api/v1/services?") {
            return None;
        }
        Some(match target {
            _ if is_stream(target) => Answer::refused(422),
            _ if target.contains("watch=1") => Answer::Open(Vec::new()),
            _ => Answer::good(
                r#"{"metadata":{"resourceVersion":"9"},"items":[
                    {"metadata":{"name":"bad","namespace":"n","resourceVersion":"1"},"spec":7},
                    {"metadata":{"name":"good","namespace":"n","resourceVersion":"2"},"spec":{}}]}"#
                    .to_owned(),
            ),
        })
    })
    .await;
    world.until("in sync", World::is_in_sync).await;
    assert!(world.objects.contains_key("Service n/good"));
    assert_eq!(world.api.problems().len(), 1);
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_isolates_its_pods() {
    let policy = r#"{"type":"ADDED","object":{"metadata":{"name":"p","namespace":"n","resourceVersion":"5"},"spec":{"podSelector":{"matchLabels":{"app":"web"}},"policyTypes":["Egress"],"egress":"all"}}}"#;
    let server = Server::start(move |target| {
        let mine =
            target.starts_with("/apis/networking.k8s.io/v1/networkpolicies?") && is_stream(target);
        mine.then(|| Answer::Open(vec![format!("{policy}\n"), bookmark(6, true)]))
    })
    .await;
    let mut api = Api::open(server.access(), timing(), None)
        .await
        .expect("a source");
    let policy = loop {
        let next = tokio::time::timeout(DEADLINE, api.next())
            .await
            .expect("in time");
        if let Some(Change::Apply { object, .. }) = next.changes.into_iter().next() {
            break object;
        }
    };
    let crate::source::Object::NetworkPolicy(policy) = &*policy else {
        panic!("a policy: {policy:?}");
    };
    assert_eq!(policy.spec.pod_selector.match_labels["app"], "web");
    assert_eq!(
        (policy.spec.policy_types.clone(), policy.spec.egress.len()),
        (vec!["Egress".to_owned()], 0)
    );
    assert!(api.problems()[0].effect.contains("allows its pods nothing"));
}

fn slice(ty: &str, version: u32, endpoints: &str) -> String {
    format!(
        r#"{{"type":"{ty}","object":{{"metadata":{{"name":"kubernetes","namespace":"default","resourceVersion":"{version}","labels":{{"kubernetes.io/service-name":"kubernetes"}}}},"addressType":"IPv4","endpoints":{endpoints},"ports":[{{"name":"https","port":6443,"protocol":"TCP"}}]}}}}"#
    ) + "\n"
}

#[tokio::test]
async fn the_api_servers_own_service_keeps_its_last_backends() {
    let one = r#"[{"addresses":["10.0.0.1"],"conditions":{"ready":true}}]"#;
    let two = r#"[{"addresses":["10.0.0.2"]}]"#;
    let unready = r#"[{"addresses":["10.0.0.1"],"conditions":{"ready":false}}]"#;
    let other = |version| {
        format!(
            r#"{{"type":"ADDED","object":{{"metadata":{{"name":"s{version}","namespace":"default","resourceVersion":"{version}"}},"addressType":"IPv4","endpoints":null,"ports":null}}}}"#
        ) + "\n"
    };
    let lines = vec![
        slice("ADDED", 1, one) + &bookmark(2, true),
        slice("MODIFIED", 3, unready)
            + &slice("MODIFIED", 4, "null")
            + &slice("DELETED", 5, "null"),
        other(6),
        slice("ADDED", 7, "null") + &slice("MODIFIED", 8, two),
        other(9),
    ];
    let mut world = World::new(move |target| {
        let mine =
            target.starts_with("/apis/discovery.k8s.io/v1/endpointslices?") && is_stream(target);
        mine.then(|| Answer::Open(lines.clone()))
    })
    .await;
    world
        .until("the last one", |w| {
            w.objects.contains_key("EndpointSlice default/s9")
        })
        .await;
    let changes: Vec<_> = world
        .changes
        .iter()
        .filter(|change| change.contains("kubernetes"))
        .collect();
    let expected = [
        "+EndpointSlice default/kubernetes@1",
        "+EndpointSlice default/kubernetes@8",
    ];
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn a_restarted_agent_keeps_the_api_servers_that_an_empty_list_does_not_have() {
    let file = std::env::temp_dir().join(format!("sluice-servers-{}", std::process::id()));
    let _ = std::fs::remove_file(&file);
    let world = |lines: Vec<String>| {
        let script = move |target: &str| {
            let mine = target.starts_with("/apis/discovery.k8s.io/v1/endpointslices?");
            (mine && is_stream(target)).then(|| Answer::Open(lines.clone()))
        };
        World::remembering(script, Some(file.clone()))
    };
    let one =
        r#"[{"addresses":["10.0.0.1"]},{"addresses":["10.0.0.9"],"conditions":{"ready":false}}]"#;
    let two = r#"[{"addresses":["10.0.0.2"]}]"#;
    let mut first = world(vec![slice("ADDED", 1, one) + &bookmark(2, true)]).await;
    first.until("in sync", World::is_in_sync).await;
    drop(first);
    let about = |world: &World| {
        let changes = world.changes.iter();
        let slices = changes.filter(|change| change.contains("default/kubernetes"));
        slices.cloned().collect::<Vec<_>>()
    };
    // The list has none, or one without addresses: those from before stay until there are others.
    let absent = bookmark(3, true);
    let empty = slice("ADDED", 3, "null") + &bookmark(4, true);
    for (list, told) in [(absent, 0), (empty, 1)] {
        let mut again = world(vec![list.clone()]).await;
        again.until("in sync", World::is_in_sync).await;
        let known = again.api.link().addresses().learnt();
        assert_eq!(known, ["10.0.0.1:6443".parse().unwrap()]);
        // Of a version that no server gave.
        let kept = "+EndpointSlice default/kubernetes@";
        assert_eq!(about(&again).get(told).map(String::as_str), Some(kept));
        let mut later = world(vec![list, slice("MODIFIED", 5, two)]).await;
        let is_new = |w: &World| {
            w.objects
                .get("EndpointSlice default/kubernetes")
                .is_some_and(|v| v == "5")
        };
        later.until("the new server", is_new).await;
        assert_eq!(
            later.api.link().addresses().learnt(),
            ["10.0.0.2:6443".parse().unwrap()]
        );
        drop(later);
        // As it was.
        let mut first = world(vec![slice("ADDED", 1, one) + &bookmark(2, true)]).await;
        first.until("in sync", World::is_in_sync).await;
    }
    std::fs::remove_file(&file).unwrap();
}
