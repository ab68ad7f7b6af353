use dataplane_model::snapshot::{Event, Labels, NodeConfig, Object};

use super::*;

fn known() -> Known {
    let mut snapshot = Snapshot::new(
        NodeConfig {
            name: "here".into(),
            ..NodeConfig::default()
        },
        [],
    );
    for (name, last) in [("web", 1), ("db", 2)] {
        let pod = Pod {
            labels: Labels::from([("app".into(), name.into())]),
            ips: vec![
                [10, 0, 0, last].into(),
                format!("fd00::{last}").parse().unwrap(),
            ],
            node: Some("here".into()),
            ..Pod::new(ObjectKey::new("shop", name))
        };
        snapshot.apply(Event::Apply(Object::Pod(pod)));
    }
    Known {
        snapshot,
        notes: Vec::new(),
    }
}

fn asked(to: Who, port: Option<&str>, manifests: &[&str]) -> Explain {
    let manifests = manifests.iter();
    Explain {
        from: Who::Pod {
            namespace: None,
            name: "web".to_owned(),
        },
        to,
        port: port.map(str::to_owned),
        protocol: if port.is_some() { "TCP" } else { "ICMP" }.to_owned(),
        namespace: "shop".to_owned(),
        manifests: manifests
            .map(|text| ("new.yaml".to_owned(), (*text).to_owned()))
            .collect(),
    }
}

fn db() -> Who {
    Who::Pod {
        namespace: Some("shop".to_owned()),
        name: "db".to_owned(),
    }
}

const NEW: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
    spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 81}]}]}\n";

#[test]
fn a_policy_that_might_be_is_explained_for_both_families() {
    let all = explain(known(), &asked(db(), Some("80"), &[])).unwrap();
    let verdicts: Vec<_> = all
        .iter()
        .map(|why| (&*why.destination, &*why.verdict))
        .collect();
    assert_eq!(
        verdicts,
        [("10.0.0.2:80", "allowed"), ("[fd00::2]:80", "allowed")]
    );
    let ingress = all[0].ingress.as_ref().unwrap();
    assert_eq!(
        (&*ingress.pod, &*ingress.reason),
        ("shop/db", "no policy is about it")
    );

    let all = explain(known(), &asked(db(), Some("80"), &[NEW])).unwrap();
    assert!(all.iter().all(|why| why.verdict == "denied"), "{all:#?}");
    let ingress = all[1].ingress.as_ref().unwrap();
    assert_eq!(
        ingress.reason,
        "isolated by shop/db, and none of their rules allows it"
    );
    assert_eq!(
        ingress.nearest,
        ["shop/db rule 1: the peer is right, the port is none of 81/TCP"]
    );
    assert_eq!(all[0].notes, ["as if new.yaml were in force"]);
    let all = explain(known(), &asked(db(), Some("81"), &[NEW])).unwrap();
    let ingress = all[0].ingress.as_ref().unwrap();
    assert_eq!(
        (&*ingress.verdict, &*ingress.reason),
        ("allowed", "by shop/db ingress rule 1")
    );
    let ping = explain(known(), &asked(db(), None, &[NEW])).unwrap();
    assert_eq!((&*ping[0].protocol, &*ping[1].protocol), ("ICMP", "ICMPv6"));
    assert_eq!(ping[0].verdict, "denied");
}

#[test]
fn what_cannot_be_explained_is_named() {
    let failed = |to: Who, port: Option<&str>, manifests: &[&str]| {
        explain(known(), &asked(to, port, manifests)).unwrap_err()
    };
    let nobody = Who::Pod {
        namespace: None,
        name: "nobody".to_owned(),
    };
    assert!(failed(nobody, Some("80"), &[]).contains("no pod shop/nobody"));
    assert!(failed(db(), Some("http"), &[]).contains("no container port http/TCP"));
    assert!(failed(db(), Some("80"), &["kind: Pod\n"]).contains("new.yaml:1"));
    let of_frontend = of_frontend("10.96.0.1:80".parse().unwrap(), "shop/db:80/TCP", &[]);
    assert!(
        of_frontend.ends_with("and it has none now"),
        "{of_frontend}"
    );
}
