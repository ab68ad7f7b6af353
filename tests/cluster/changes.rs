//! Services that change, lose their endpoints, or go.

use crate::cluster::OUTSIDE;
use crate::scene::{Scene, answers, deployment, fails};

#[test]
fn a_service_without_endpoints_refuses() {
    let scene = Scene::with_web("empty");
    scene.service("web", ", type: NodePort");
    let inside = scene.inside();
    let port = scene.node_port("web", "tcp");
    let outside = scene.cluster.host(OUTSIDE);
    let hosts = ["172.30.0.11", "fd30::12"]
        .map(|host| (host.parse::<std::net::IpAddr>().unwrap(), port).into());
    for to in hosts {
        answers(&outside, to);
    }
    scene.kubectl(&["scale", "deployment/web", "--replicas=0"]);
    for client in &inside {
        for to in scene.vips("web") {
            fails(client, to, "to refuse", |failure| failure.is_refused());
        }
    }
    for to in hosts {
        fails(&outside, to, "to refuse", |failure| failure.is_refused());
    }
    scene.kubectl(&["scale", "deployment/web", "--replicas=2"]);
    for client in inside.iter().chain([&outside]) {
        let all = scene
            .vips("web")
            .into_iter()
            .filter(|_| client.name != OUTSIDE);
        for to in all.chain(hosts) {
            answers(client, to);
        }
    }
}

#[test]
fn a_service_that_becomes_a_name_only_is_torn_down() {
    let scene = Scene::with_web("name");
    scene.service("web", "");
    let vips = scene.vips("web");
    let inside = scene.inside();
    for client in &inside {
        for to in &vips {
            answers(client, *to);
        }
    }
    let change = r#"{"spec":{"type":"ExternalName","externalName":"example.org","clusterIP":null,"clusterIPs":null,"ipFamilies":null,"ipFamilyPolicy":null,"selector":null}}"#;
    scene.kubectl(&["patch", "service", "web", "--type=merge", "-p", change]);
    for client in &inside {
        for to in &vips {
            fails(client, *to, "to fail", |_| true);
        }
    }
}

#[test]
fn a_service_given_to_another_proxy_is_torn_down() {
    let scene = Scene::with_web("label");
    scene.service("web", "");
    let vips = scene.vips("web");
    let inside = scene.inside();
    for label in [
        "service.kubernetes.io/service-proxy-name=other",
        "service.kubernetes.io/service-proxy-name-",
    ] {
        for client in &inside {
            for to in &vips {
                answers(client, *to);
            }
        }
        scene.kubectl(&["label", "service", "web", label]);
        let gone = label.contains('=');
        for client in &inside {
            for to in &vips {
                if gone {
                    fails(client, *to, "to fail", |_| true);
                } else {
                    answers(client, *to);
                }
            }
        }
        if gone {
            scene.kubectl(&[
                "label",
                "service",
                "web",
                "service.kubernetes.io/service-proxy-name-",
            ]);
        }
    }
}

#[test]
fn terminating_endpoints_serve_while_there_are_no_others() {
    let scene = Scene::new("ending");
    let slow = deployment("web", 2, "v1", ", terminationGracePeriodSeconds: 60")
        .replace("seconds: 3", "seconds: 40");
    scene.apply(&slow);
    scene.rolled_out("web");
    scene.service("web", ", type: NodePort");
    let outside = scene.cluster.host(OUTSIDE);
    let to = (
        "172.30.0.11".parse::<std::net::IpAddr>().unwrap(),
        scene.node_port("web", "tcp"),
    )
        .into();
    answers(&outside, to);
    let old = scene.web();
    scene.kubectl(&["delete", "pod", "--wait=false", "-l", "app=web"]);
    scene.kubectl(&["scale", "deployment/web", "--replicas=0"]);
    let ready = [
        "get",
        "endpointslice",
        "-l",
        "kubernetes.io/service-name=web",
        "-o",
        "jsonpath={.items[*].endpoints[*].conditions.ready}",
    ];
    sluice_lab::wait::until(crate::scene::PATIENCE, "no endpoint to be ready", || {
        let said = scene.try_kubectl(&ready)?;
        anyhow::ensure!(!said.contains("true"), "{said}");
        Ok(())
    })
    .unwrap();
    for _ in 0..20 {
        let answer = crate::scene::ask(&outside, to).unwrap();
        assert!(
            old.contains(&answer.name),
            "{} is not one of {old:?}",
            answer.name
        );
    }
}
