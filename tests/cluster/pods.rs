//! What pods see of Services: names, their own first packets, and the paths that need none.

use sluice_lab::wait;

use crate::cluster::NODES;
use crate::scene::{PATIENCE, Scene, answers, fails};

#[test]
fn exec_and_logs_work() {
    let scene = Scene::with_web("exec");
    let said = scene.kubectl(&["exec", "client-n1", "--", "hostname"]);
    assert_eq!(said.trim(), "client-n1");
    let pod = scene.web().remove(0);
    assert_eq!(scene.kubectl(&["logs", &pod]).trim(), "listening");
}

#[test]
fn names_resolve_to_cluster_ips_and_headless_ones_to_pods() {
    let scene = Scene::with_web("dns");
    scene.service("web", "");
    scene.service("each", ", clusterIP: None");
    let pods = scene.kubectl(&[
        "get",
        "pod",
        "-l",
        "app=web",
        "-o",
        "jsonpath={.items[*].status.podIPs[*].ip}",
    ]);
    let vips: Vec<String> = scene
        .vips("web")
        .iter()
        .map(|vip| vip.ip().to_string())
        .collect();
    for node in NODES {
        let expected: [(&str, Vec<String>); 2] = [
            ("web", vips.clone()),
            ("each", pods.split_whitespace().map(Into::into).collect()),
        ];
        for (name, mut addresses) in expected {
            let full = format!("{name}.{}.svc.cluster.local", scene.namespace);
            addresses.sort();
            wait::until(PATIENCE, &format!("{full} on {node}"), || {
                let pod = format!("client-{node}");
                let said = scene.try_kubectl(&[
                    "exec", &pod, "--", "dig", "+short", &full, "A", &full, "AAAA",
                ])?;
                let mut found: Vec<&str> = said.split_whitespace().collect();
                found.sort_unstable();
                anyhow::ensure!(found == addresses, "{found:?} are not {addresses:?}");
                Ok(())
            })
            .unwrap();
        }
    }
}

#[test]
fn a_pods_first_packet_reaches_a_service() {
    first_packets("first", "", "Succeeded");
}

#[test]
fn a_pods_first_packet_is_dropped_where_policy_forbids_it() {
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: first},
        spec: {podSelector: {matchLabels: {first: 'yes'}}, policyTypes: [Egress]}}";
    first_packets("first-denied", policy, "Failed");
}

/// Pods that do nothing but connect to a Service, and how all of them end beside an object.
fn first_packets(name: &str, object: &str, expected: &str) {
    let scene = Scene::with_web(name);
    scene.service("web", "");
    let vips = scene.vips("web");
    for client in scene.inside() {
        for to in &vips {
            answers(&client, *to);
        }
    }
    if !object.is_empty() {
        scene.apply(object);
    }
    for (index, to) in vips.iter().cycle().take(8).enumerate() {
        let node = NODES[(index / 2) % 2];
        scene.apply(&format!(
            r#"{{apiVersion: v1, kind: Pod, metadata: {{name: first-{index}, labels: {{first: "yes"}}}}, spec: {{nodeName: {node}, restartPolicy: Never,
                containers: [{{name: c, image: "registry.k8s.io/e2e-test-images/agnhost:2.53", command: [/agnhost, connect, "{to}", --timeout=1s]}}]}}}}"#
        ));
    }
    let phases = [
        "get",
        "pod",
        "-l",
        "first",
        "-o",
        "jsonpath={.items[*].status.phase}",
    ];
    let said = wait::until(PATIENCE, "the pods to end", || {
        let said = scene.try_kubectl(&phases)?;
        anyhow::ensure!(
            said.split(' ')
                .all(|phase| ["Succeeded", "Failed"].contains(&phase)),
            "{said}"
        );
        Ok(said)
    })
    .unwrap();
    assert!(said.split(' ').all(|phase| phase == expected), "{said}");
}

#[test]
fn a_pod_whose_gate_is_closed_is_no_endpoint() {
    let scene = Scene::with_web("gate");
    scene.kubectl(&["delete", "deployment", "web", "--wait=true"]);
    scene.apply(&crate::scene::deployment(
        "web",
        1,
        "v1",
        r#", readinessGates: [{conditionType: sluice.dev/test}]"#,
    ));
    scene.service("web", "");
    let inside = scene.inside();
    for client in &inside {
        for to in scene.vips("web") {
            fails(client, to, "to refuse", |failure| failure.is_refused());
        }
    }
    let gated = || {
        scene.kubectl(&[
            "get",
            "pod",
            "-l",
            "app=web",
            "-o",
            "jsonpath={.items[?(@.spec.readinessGates)].metadata.name}",
        ])
    };
    let open = r#"{"status":{"conditions":[{"type":"sluice.dev/test","status":"True"}]}}"#;
    scene.kubectl(&["patch", "pod", &gated(), "--subresource=status", "-p", open]);
    for client in &inside {
        for to in scene.vips("web") {
            assert_eq!(answers(client, to).name, gated());
        }
    }
}
