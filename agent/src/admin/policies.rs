//! Policies and the pods that they select.

use dataplane_model::snapshot::{
    ClusterPolicy, Direction, NetworkPolicy, Pod, PolicyMode, Selector, Snapshot, Tier,
};

use super::protocol::Policy;

/// All policies, in the order of tiers: Admin, NetworkPolicies, Baseline.
pub(super) fn policies(snapshot: &Snapshot) -> Vec<Policy> {
    let tiers = snapshot.cluster_policies.values();
    let mut tiers: Vec<&ClusterPolicy> = tiers.map(|policy| &**policy).collect();
    tiers.sort_by_key(|policy| (policy.tier, policy.priority, &policy.key));
    let last_admin = tiers.partition_point(|policy| policy.tier == Tier::Admin);
    let (admin, baseline) = tiers.split_at(last_admin);
    let admin = admin.iter().map(|policy| of_tier(snapshot, policy));
    let baseline = baseline.iter().map(|policy| of_tier(snapshot, policy));
    let namespaced = snapshot.policies.values();
    let namespaced = namespaced.map(|policy| of_namespace(snapshot, policy));
    admin.chain(namespaced).chain(baseline).collect()
}

fn of_namespace(snapshot: &Snapshot, policy: &NetworkPolicy) -> Policy {
    let selects =
        |pod: &Pod| pod.key.namespace == policy.key.namespace && policy.pods.matches(&pod.labels);
    let (pods, pods_in_cluster) = selected(snapshot, selects);
    Policy {
        policy: policy.key.to_string(),
        audit: snapshot.is_audited(policy),
        selector: policy.pods.to_string(),
        ingress_rules: policy.rules(Direction::Ingress).map(<[_]>::len),
        egress_rules: policy.rules(Direction::Egress).map(<[_]>::len),
        pods,
        pods_in_cluster,
    }
}

fn of_tier(snapshot: &Snapshot, policy: &ClusterPolicy) -> Policy {
    let selects = |pod: &Pod| {
        policy.pods.matches(&pod.labels)
            && policy
                .namespaces
                .matches(&snapshot.namespace_labels(&pod.key.namespace))
    };
    let (pods, pods_in_cluster) = selected(snapshot, selects);
    let of_namespaces = |selector: &Selector| match selector.requirements() {
        [] => String::new(),
        _ => format!(" in namespaces with {selector}"),
    };
    let rules = |direction| {
        let rules = policy.rules(direction).len();
        (rules > 0).then_some(rules)
    };
    Policy {
        policy: policy.title(),
        audit: policy.mode == PolicyMode::Audit,
        selector: format!("{}{}", policy.pods, of_namespaces(&policy.namespaces)),
        ingress_rules: rules(Direction::Ingress),
        egress_rules: rules(Direction::Egress),
        pods,
        pods_in_cluster,
    }
}

/// The pods of this node that are selected, and how many there are in the cluster.
fn selected(snapshot: &Snapshot, selects: impl Fn(&Pod) -> bool) -> (Vec<String>, usize) {
    let pods = snapshot.pods.values();
    let (mut here, mut all) = (Vec::new(), 0);
    for pod in pods.filter(|pod| pod.is_policy_pod() && selects(pod)) {
        all += 1;
        if pod.node.as_ref() == Some(&snapshot.node.name) {
            here.push(pod.key.to_string());
        }
    }
    (here, all)
}
