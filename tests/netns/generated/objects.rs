//! Random policies, as users write them.

use serde_json::{Value, json};
use sluice_generate::dice::Dice;

/// Values of the label `app`.
pub const APPS: [&str; 3] = ["web", "api", "db"];
/// Values of the label `team`, of namespaces.
pub const TEAMS: [&str; 2] = ["red", "blue"];
/// Namespaces.
pub const NAMESPACES: [&str; 3] = ["one", "two", "three"];

/// Some policies of all kinds. `blocks` are prefixes with pods in them.
pub fn policies(dice: &mut Dice, blocks: &[String]) -> Vec<Value> {
    let mut all = Vec::new();
    for number in 0..dice.below(5) {
        all.push(network_policy(dice, number, blocks));
    }
    for number in 0..dice.below(4) {
        all.push(cluster_policy(dice, number, blocks));
    }
    all
}

fn network_policy(dice: &mut Dice, number: usize, blocks: &[String]) -> Value {
    let mut spec = json!({ "podSelector": pods(dice), "policyTypes": [] });
    for (direction, field, peers) in [("Ingress", "ingress", "from"), ("Egress", "egress", "to")] {
        if dice.once_in(3) {
            continue;
        }
        let rules: Vec<Value> = (0..dice.below(3))
            .map(|_| rule(dice, peers, blocks))
            .collect();
        spec["policyTypes"]
            .as_array_mut()
            .expect("made above")
            .push(json!(direction));
        spec[field] = json!(rules);
    }
    if spec["policyTypes"] == json!([]) {
        spec["policyTypes"] = json!(["Ingress"]);
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": format!("np{number}"),
            "namespace": dice.pick(&NAMESPACES),
            "annotations": annotations(dice),
        },
        "spec": spec,
    })
}

/// Some policies are in audit.
fn annotations(dice: &mut Dice) -> Value {
    match dice.once_in(6) {
        true => json!({ "sluice.dev/policy-mode": "audit" }),
        false => json!({}),
    }
}

fn rule(dice: &mut Dice, field: &str, blocks: &[String]) -> Value {
    let mut rule = json!({});
    if !dice.once_in(4) {
        let peers: Vec<Value> = (0..=dice.below(2)).map(|_| peer(dice, blocks)).collect();
        rule[field] = json!(peers);
    }
    if !dice.once_in(3) {
        let ports: Vec<Value> = (0..=dice.below(2)).map(|_| port(dice)).collect();
        rule["ports"] = json!(ports);
    }
    rule
}

fn peer(dice: &mut Dice, blocks: &[String]) -> Value {
    match dice.below(4) {
        0 => json!({ "podSelector": pods(dice) }),
        1 => json!({ "namespaceSelector": namespaces(dice) }),
        2 => json!({ "namespaceSelector": namespaces(dice), "podSelector": pods(dice) }),
        _ => block(dice, blocks),
    }
}

fn block(dice: &mut Dice, blocks: &[String]) -> Value {
    let inner = &blocks[dice.below(blocks.len())];
    let all = if inner.contains(':') {
        "::/0"
    } else {
        "0.0.0.0/0"
    };
    match dice.below(3) {
        0 => json!({ "ipBlock": { "cidr": inner } }),
        1 => json!({ "ipBlock": { "cidr": all } }),
        _ => json!({ "ipBlock": { "cidr": all, "except": [inner] } }),
    }
}

fn port(dice: &mut Dice) -> Value {
    let protocol = dice.pick(&["TCP", "UDP"]);
    match dice.below(4) {
        0 => json!({ "protocol": protocol }),
        1 => json!({ "protocol": protocol, "port": dice.pick(&super::PORTS) }),
        2 => json!({ "protocol": protocol, "port": 80, "endPort": dice.pick(&[80, 100, 8080]) }),
        _ => json!({ "protocol": protocol, "port": "web" }),
    }
}

fn cluster_policy(dice: &mut Dice, number: usize, blocks: &[String]) -> Value {
    let mut spec = json!({
        "tier": dice.pick(&["Admin", "Baseline"]),
        // Of one priority each: among equals, the order is not defined.
        "priority": number,
        "subject": subject(dice),
    });
    for (field, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules: Vec<Value> = (0..dice.below(4))
            .map(|_| tier_rule(dice, peers, blocks))
            .collect();
        if !rules.is_empty() {
            spec[field] = json!(rules);
        }
    }
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": { "name": format!("cnp{number}"), "annotations": annotations(dice) },
        "spec": spec,
    })
}

fn subject(dice: &mut Dice) -> Value {
    if dice.once_in(2) {
        json!({ "namespaces": namespaces(dice) })
    } else {
        json!({ "pods": { "namespaceSelector": namespaces(dice), "podSelector": pods(dice) } })
    }
}

fn tier_rule(dice: &mut Dice, field: &str, blocks: &[String]) -> Value {
    let peer = |dice: &mut Dice| match dice.below(if field == "to" { 3 } else { 2 }) {
        0 => json!({ "namespaces": namespaces(dice) }),
        1 => {
            json!({ "pods": { "namespaceSelector": namespaces(dice), "podSelector": pods(dice) } })
        }
        _ => json!({ "networks": [blocks[dice.below(blocks.len())]] }),
    };
    let peers: Vec<Value> = (0..=dice.below(2)).map(|_| peer(dice)).collect();
    let mut rule = json!({ "action": dice.pick(&["Accept", "Deny", "Pass"]), field: peers });
    if !dice.once_in(3) {
        let protocol = dice.pick(&["tcp", "udp"]);
        let to = if dice.once_in(2) {
            json!({ "number": dice.pick(&super::PORTS) })
        } else {
            json!({ "range": { "start": 80, "end": dice.pick(&[81, 100, 8080]) } })
        };
        rule["protocols"] = json!([{ protocol: { "destinationPort": to } }]);
    }
    rule
}

fn pods(dice: &mut Dice) -> Value {
    selector(dice, "app", &APPS)
}

fn namespaces(dice: &mut Dice) -> Value {
    if dice.once_in(4) {
        return json!({ "matchLabels": { "kubernetes.io/metadata.name": dice.pick(&NAMESPACES) } });
    }
    selector(dice, "team", &TEAMS)
}

fn selector(dice: &mut Dice, key: &str, values: &[&'static str]) -> Value {
    match dice.below(6) {
        0 => json!({}),
        1 => json!({ "matchExpressions": [{ "key": key, "operator": "Exists" }] }),
        2 => json!({ "matchExpressions": [{ "key": key, "operator": "DoesNotExist" }] }),
        3 => json!({ "matchExpressions": [
            { "key": key, "operator": "NotIn", "values": [dice.pick(values)] }
        ] }),
        _ => json!({ "matchLabels": { key: dice.pick(values) } }),
    }
}
