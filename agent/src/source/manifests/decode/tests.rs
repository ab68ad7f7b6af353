use super::*;

fn keys(text: &str) -> Vec<String> {
    decode(text)
        .into_iter()
        .map(|decoded| match decoded.content {
            Content::Object(object, _) => format!("{} {}", decoded.line, object.key()),
            Content::Skipped(what) => format!("{} skipped {what}", decoded.line),
            Content::Bad(bad) => {
                let key = bad.key.map_or(String::from("?"), |key| key.to_string());
                format!("{} bad {key} [{}] {}", decoded.line, bad.field, bad.message)
            }
        })
        .collect()
}

#[test]
fn documents_are_dispatched_by_kind() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n\
        apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n\
        apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n---\n\
        apiVersion: networking.istio.io/v1beta1\nkind: VirtualService\nmetadata: {name: v, namespace: m}\n";
    assert_eq!(
        keys(text),
        [
            "1 Service default/a",
            "5 skipped apps/v1/Deployment",
            "9 Namespace n",
            "13 VirtualService m/v"
        ]
    );
}

#[test]
fn a_bad_document_leaves_the_others() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports: 3\n---\n\
        key: [unclosed\n---\n\
        apiVersion: v1\nkind: Service\nmetadata: {name: b}\n";
    let found = keys(text);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with("5 bad Service default/a [spec.ports] "),
        "{found:?}"
    );
    assert!(found[1].contains(" bad ? "), "{found:?}");
    assert_eq!(found[2], "9 Service default/b");
}

#[test]
fn what_is_missing_is_named() {
    assert!(keys("kind: Service\n")[0].contains("[apiVersion] missing"));
    assert!(keys("apiVersion: v1\n")[0].contains("[kind] missing"));
    assert!(keys("apiVersion: v1\nkind: Service\n")[0].contains("[metadata.name] missing"));
    let generated = "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n";
    assert!(keys(generated)[0].contains("[metadata.generateName]"));
    let name = "apiVersion: v1\nkind: Pod\nmetadata: {name: A/b}\n";
    assert!(keys(name)[0].contains("\"A/b\" is not a name"));
}

#[test]
fn an_unknown_version_of_a_known_kind_is_bad() {
    let text = "apiVersion: networking.k8s.io/v9\nkind: NetworkPolicy\nmetadata: {name: p}\n";
    assert!(keys(text)[0].contains("write networking.k8s.io/v1"));
}

#[test]
fn lists_are_opened_and_their_items_have_lines() {
    let text = "# x\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n\
        - apiVersion: v1\n  kind: Service\n  metadata: {name: b}\n  spec: {ports: 3}\n";
    let found = keys(text);
    assert_eq!(found[0], "6 Service default/a");
    assert!(
        found[1].starts_with("12 bad Service default/b [items[1].spec.ports] "),
        "{found:?}"
    );
}

#[test]
fn json_lists_are_opened_too() {
    let text = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}]}"#;
    let found = decode(text);
    assert!(
        matches!(&found[..], [Decoded { content: Content::Object(object, _), .. }] if object.key().to_string() == "Node n")
    );
}

#[test]
fn an_unreadable_policy_is_closed() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
        metadata: {name: p, annotations: {sluice.dev/policy-mode: audit}}\n\
        spec:\n  podSelector: {matchLabels: {app: x}}\n  policyTypes: [Ingress]\n  ingress: nonsense\n";
    let found = decode(text);
    let [
        Decoded {
            content:
                Content::Bad(Bad {
                    closed: Some(closed),
                    ..
                }),
            ..
        },
    ] = &found[..]
    else {
        panic!("{found:?}");
    };
    let Object::NetworkPolicy(closed) = closed else {
        panic!("{closed:?}");
    };
    let annotations = &closed.metadata.annotations;
    assert_eq!(annotations["sluice.dev/policy-mode"], "audit");
    let spec = &closed.spec;
    assert_eq!(spec.pod_selector.match_labels["app"], "x");
    assert_eq!(spec.policy_types, ["Ingress"]);
    assert!(spec.ingress.is_empty() && spec.egress.is_empty());
}

#[test]
fn an_unreadable_selector_closes_the_namespace() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n\
        spec:\n  podSelector: nonsense\n";
    let found = decode(text);
    let [
        Decoded {
            content:
                Content::Bad(Bad {
                    closed: Some(closed),
                    ..
                }),
            ..
        },
    ] = &found[..]
    else {
        panic!("{found:?}");
    };
    let Object::NetworkPolicy(closed) = closed else {
        panic!("{closed:?}");
    };
    let spec = &closed.spec;
    assert_eq!(
        spec.pod_selector,
        crate::source::schema::LabelSelector::default()
    );
    assert_eq!(spec.policy_types.len(), 2);
}
