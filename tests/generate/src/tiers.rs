//! Policies of the tiers Admin and Baseline.

use dataplane_model::snapshot::*;
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::cluster::{labels_of, mode, namespace_selector, net, peer, ports, selector};

/// A few policies, some with one priority.
pub fn policies() -> impl Strategy<Value = Vec<Object>> {
    vec(policy(), 0..4).prop_map(|policies| {
        let named = policies.into_iter().enumerate().map(|(i, policy)| {
            let key = ClusterPolicyKey::new(policy.key.kind, format!("cp{i}"));
            Object::ClusterPolicy(ClusterPolicy { key, ..policy })
        });
        named.collect()
    })
}

fn policy() -> impl Strategy<Value = ClusterPolicy> {
    let kind = select(vec![
        ClusterPolicyKind::Cluster,
        ClusterPolicyKind::Cluster,
        ClusterPolicyKind::Admin,
        ClusterPolicyKind::Baseline,
    ]);
    let tier = select(vec![Tier::Admin, Tier::Admin, Tier::Baseline]);
    let priority = select(vec![0i16, 10, 10, 1000]);
    let subject = (namespace_selector(), selector());
    let rules = |egress| option::weighted(0.7, vec(rule(egress), 1..5));
    (
        kind,
        (tier, mode()),
        priority,
        subject,
        rules(false),
        rules(true),
    )
        .prop_map(
            |(kind, (tier, mode), priority, (namespaces, pods), ingress, egress)| ClusterPolicy {
                key: ClusterPolicyKey::new(kind, "cp"),
                mode,
                tier: match kind {
                    ClusterPolicyKind::Cluster => tier,
                    ClusterPolicyKind::Admin => Tier::Admin,
                    ClusterPolicyKind::Baseline => Tier::Baseline,
                },
                priority: match kind {
                    ClusterPolicyKind::Baseline => ClusterPolicy::LAST,
                    _ => priority,
                },
                namespaces,
                pods,
                ingress: ingress.unwrap_or_default(),
                egress: egress.unwrap_or_default(),
            },
        )
}

/// A rule; only those for what pods send have peers that are no pods. Any peer at all stands for a
/// rule that was closed.
fn rule(egress: bool) -> impl Strategy<Value = TierRule> {
    let action = select(vec![RuleAction::Accept, RuleAction::Deny, RuleAction::Pass]);
    let pods = (namespace_selector(), selector()).prop_map(|(namespaces, pods)| Peer::Pods {
        namespaces: NamespaceScope::Matching(namespaces),
        pods,
    });
    let nodes = select(vec![None, Some("edge"), Some("core")])
        .prop_map(|role| Peer::Nodes(Selector::from(&labels_of("role", role))));
    let network = select(vec!["0.0.0.0/0", "10.0.0.0/8", "192.168.0.2/32", "::/0"]);
    let network = network.prop_map(|cidr| Peer::Block {
        cidr: net(cidr),
        except: Vec::new(),
    });
    let domain = select(vec!["example.com", "*.example.com", "*.b.example.com"]);
    let domain = domain.prop_map(|text| Peer::Domain(DomainPattern::parse(text).expect("a name")));
    let peer = if egress {
        prop_oneof![4 => pods, 2 => nodes, 2 => network, 2 => domain, 1 => peer()].boxed()
    } else {
        pods.boxed()
    };
    let peers = prop_oneof![1 => Just(Peers::Any), 8 => vec(peer, 0..3).prop_map(Peers::Only)];
    let named = select(vec!["", "first"]);
    (named, action, peers, ports()).prop_map(|(name, action, peers, ports)| {
        // The API has names in rules that accept only.
        let domain = |peer: &Peer| matches!(peer, Peer::Domain(_));
        let names = matches!(&peers, Peers::Only(peers) if peers.iter().any(domain));
        TierRule {
            name: name.into(),
            action: if names { RuleAction::Accept } else { action },
            matches: Rule { peers, ports },
        }
    })
}
