//! Conditions on policies.

use serde_json::Value;

use super::super::Conditions;
use super::*;
use crate::source::Object;
use crate::source::tiers::TierPolicy;

const GROUP: &str = "/apis/policy.networking.k8s.io";

fn policy(name: &str, observed: Option<i64>) -> Object {
    let mut policy = TierPolicy::default();
    policy.metadata.name = Some(name.to_owned());
    policy.metadata.generation = Some(7);
    let said = observed.map(|generation| {
        serde_json::json!({"type": "sluice.dev/Understood", "status": "False", "observedGeneration": generation})
    });
    policy.status = serde_json::json!({"conditions": said.into_iter().collect::<Vec<_>>()});
    Object::ClusterNetworkPolicy(Box::new(policy))
}

fn problem(name: &str) -> Problem {
    Problem {
        origin: ORIGIN,
        object: Some(ObjectKey::new(Kind::ClusterNetworkPolicy, None, name)),
        field: "spec.tier".to_owned(),
        message: "not a tier".to_owned(),
        effect: "it is closed".to_owned(),
    }
}

/// A server that has the kind.
async fn server() -> Server {
    Server::start(|target| {
        let answer = match target {
            GROUP => r#"{"versions":[{"version":"v1alpha2"}]}"#,
            "/apis/policy.networking.k8s.io/v1alpha2" => {
                r#"{"resources":[{"name":"clusternetworkpolicies","kind":"ClusterNetworkPolicy"}]}"#
            }
            target if target.starts_with(GROUP) => "{}",
            _ => return None,
        };
        Some(Answer::good(answer.to_owned()))
    })
    .await
}

#[tokio::test]
async fn a_condition_is_applied_to_the_status_unless_another_node_was_first() {
    let server = server().await;
    let link = Link::new(server.access()).await.expect("a link");
    let conditions = Conditions::start(link, "node-1");
    conditions.see(&policy("first", None), &[problem("first")]);
    // Another node has written, and the object came again.
    conditions.see(&policy("first", Some(7)), &[problem("first")]);
    conditions.see(&policy("good", None), &[]);
    conditions.see(&policy("second", Some(6)), &[problem("second")]);
    let patches = server.await_asked("PATCH", GROUP, 1).await;
    let [only] = &patches[..] else {
        panic!("{patches:?}");
    };
    assert_eq!(
        only.target,
        "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/second/status?fieldManager=sluice.dev&force=true"
    );
    let body: Value = serde_json::from_str(&only.body).expect("JSON");
    assert_eq!(body["metadata"]["name"], "second");
    assert_eq!(body["status"]["conditions"][0]["observedGeneration"], 7);
}
