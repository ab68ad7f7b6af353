//! NetworkPolicy (networking.k8s.io/v1) and ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2).

use std::net::IpAddr;

use crate::snapshot::{
    ClusterPolicy, ClusterPolicyKey, Direction, NamespaceScope, NetworkPolicy, ObjectKey, Peer,
    Peers, Pod, PolicyMode, PortMatch, PortRange, Ports, Protocol, Rule, RuleAction, Snapshot,
    Text, Tier,
};

/// What policies say of one end of a flow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Side {
    /// The rule of a tier that decides.
    pub ruling: Option<Ruling>,
    /// NetworkPolicies that isolate the pod in this direction.
    pub isolated_by: Vec<ObjectKey>,
    /// Their rules that allow the flow: the policy and the rule's place in it.
    pub allowed_by: Vec<(ObjectKey, usize)>,
    /// They do not police such a flow.
    pub exempt: bool,
    /// Some policy of any tier has rules for the pod in this direction.
    pub concerned: bool,
}

/// A rule of tier Admin or Baseline that decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ruling {
    /// The policy.
    pub policy: ClusterPolicyKey,
    /// The rule's place in it.
    pub place: usize,
    /// It lets the flow pass.
    pub accepts: bool,
}

impl Side {
    /// True if the flow is not forbidden here.
    pub fn is_allowed(&self) -> bool {
        match &self.ruling {
            Some(ruling) => ruling.accepts,
            None => self.isolated_by.is_empty() || self.exempt || !self.allowed_by.is_empty(),
        }
    }
}

/// What policies say of a flow.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Of the sender.
    pub egress: Side,
    /// Of the receiver.
    pub ingress: Side,
}

impl Verdict {
    /// True if neither end forbids the flow.
    pub fn is_allowed(&self) -> bool {
        self.egress.is_allowed() && self.ingress.is_allowed()
    }
}

/// Judges a flow between two addresses, after translation of the destination, by the policies in force.
/// `protocol` is `None` for one without ports.
pub fn judge(
    snapshot: &Snapshot,
    src: IpAddr,
    dst: IpAddr,
    protocol: Option<Protocol>,
    port: u16,
) -> Verdict {
    let flow = Flow {
        snapshot,
        src,
        dst,
        protocol,
        port,
        mode: PolicyMode::Enforce,
    };
    flow.verdict()
}

/// A flow, after translation of the destination.
#[derive(Clone, Copy)]
pub struct Flow<'a> {
    /// What is known.
    pub snapshot: &'a Snapshot,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// `None` for one without ports.
    pub protocol: Option<Protocol>,
    /// Destination port.
    pub port: u16,
    /// In audit, all policies are asked; else those in force.
    pub mode: PolicyMode,
}

/// A rule that is asked about one end of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked<'a> {
    /// The policy of a tier, or else the NetworkPolicy.
    pub policy: Result<&'a ClusterPolicy, &'a NetworkPolicy>,
    /// The rule's place in it.
    pub place: usize,
    /// What it does.
    pub action: RuleAction,
    /// Its name; empty for none.
    pub name: &'a str,
    /// What it matches.
    pub rule: &'a Rule,
    /// Some of its peers is the flow's other end, or it may be, and the rule is closed.
    pub peer: bool,
    /// The flow's port is among its ports, for such a peer if there is one.
    pub ports: bool,
    /// The rule does not accept, and nobody knows whether it is about the flow: it denies.
    pub closed: bool,
}

/// Who is at the other end.
enum Other<'a> {
    Pod(&'a Pod),
    Node(&'a Text),
    /// Nobody is known there, and a pod may be.
    UnknownPod,
    World,
}

impl<'a> Flow<'a> {
    /// Judges it.
    ///
    /// What a node sends to its pods is never policed. Unless the node's settings say so, NetworkPolicies
    /// police neither what a pod sends to its own node ("traffic to and from the node where a pod is running
    /// is always allowed") nor what it sends to itself.
    pub fn verdict(&self) -> Verdict {
        let node = &self.snapshot.node;
        let own_node = |ip: IpAddr| node.addresses.contains(&ip);
        let to_itself = self.src == self.dst && !node.police_hairpin;
        let to_node = own_node(self.dst) && !node.police_node_egress;
        let ingress = if own_node(self.src) {
            Side::default()
        } else {
            self.side(Direction::Ingress, to_itself)
        };
        Verdict {
            egress: self.side(Direction::Egress, to_itself || to_node),
            ingress,
        }
    }

    /// The rules that are asked about one end, in their order: Admin, then the NetworkPolicies that
    /// isolate the pod there, or Baseline if none does. Which one decides, [`judge`] says.
    pub fn asked(&self, direction: Direction) -> Vec<Asked<'a>> {
        let subject = match direction {
            Direction::Ingress => self.dst,
            Direction::Egress => self.src,
        };
        let Some(subject) = self.pod(subject) else {
            return Vec::new();
        };
        let mut asked = self.asked_of(subject, Tier::Admin, direction);
        let isolating = self.isolating(subject, direction);
        if isolating.is_empty() {
            asked.append(&mut self.asked_of(subject, Tier::Baseline, direction));
        }
        for (policy, rules) in isolating {
            for (place, rule) in rules.iter().enumerate() {
                let (peer, ports) = self.fares(Some(&policy.key.namespace), rule, direction);
                asked.push(Asked {
                    policy: Err(policy),
                    place,
                    action: RuleAction::Accept,
                    name: "",
                    rule,
                    peer,
                    ports,
                    closed: false,
                });
            }
        }
        asked
    }

    fn asked_of(&self, subject: &Pod, tier: Tier, direction: Direction) -> Vec<Asked<'a>> {
        let policies = self.tier(subject, tier, direction).into_iter();
        let rules = policies.flat_map(|policy| {
            let rules = policy.rules(direction).iter().enumerate();
            rules.map(move |(place, rule)| (policy, place, rule))
        });
        let asked = rules.map(|(policy, place, rule)| {
            let closed =
                rule.action != RuleAction::Accept && self.may_match(&rule.matches, direction);
            let (peer, ports) = self.fares(None, &rule.matches, direction);
            Asked {
                policy: Ok(policy),
                place,
                action: rule.action,
                name: &rule.name,
                rule: &rule.matches,
                peer: peer || closed,
                ports: ports || closed,
                closed,
            }
        });
        asked.collect()
    }

    fn side(&self, direction: Direction, exempt: bool) -> Side {
        let mut side = Side {
            exempt,
            ..Side::default()
        };
        let subject = match direction {
            Direction::Ingress => self.dst,
            Direction::Egress => self.src,
        };
        let Some(subject) = self.pod(subject) else {
            return side;
        };
        let admin = self.tier(subject, Tier::Admin, direction);
        let baseline = self.tier(subject, Tier::Baseline, direction);
        self.network_policies(subject, direction, &mut side);
        let isolated = !side.isolated_by.is_empty();
        side.concerned = isolated || !admin.is_empty() || !baseline.is_empty();
        side.ruling = self.ruling(&admin, direction);
        if side.ruling.is_none() && !isolated {
            side.ruling = self.ruling(&baseline, direction);
        }
        side
    }

    /// NetworkPolicies that isolate a pod in a direction, with their rules for it.
    pub fn isolating(
        &self,
        subject: &Pod,
        direction: Direction,
    ) -> Vec<(&'a NetworkPolicy, &'a [Rule])> {
        let policies = self.snapshot.policies.values().map(|policy| &**policy);
        let asked = policies.filter(|policy| self.asks(self.snapshot.is_audited(policy)));
        let selecting = asked.filter(|policy| {
            policy.key.namespace == subject.key.namespace && policy.pods.matches(&subject.labels)
        });
        selecting
            .filter_map(|policy| Some((policy, policy.rules(direction)?)))
            .collect()
    }

    fn asks(&self, in_audit: bool) -> bool {
        !in_audit || self.mode == PolicyMode::Audit
    }

    fn network_policies(&self, subject: &Pod, direction: Direction, side: &mut Side) {
        for (policy, rules) in self.isolating(subject, direction) {
            side.isolated_by.push(policy.key.clone());
            for (place, rule) in rules.iter().enumerate() {
                let namespace = Some(&policy.key.namespace);
                if self.matches(namespace, rule, direction) {
                    side.allowed_by.push((policy.key.clone(), place));
                }
            }
        }
    }

    /// The tier's policies with rules for a pod, in the order in which they are asked.
    fn tier(&self, subject: &Pod, tier: Tier, direction: Direction) -> Vec<&'a ClusterPolicy> {
        let namespace = self.snapshot.namespace_labels(&subject.key.namespace);
        let policies = self.snapshot.cluster_policies.values();
        let policies = policies.map(|policy| &**policy);
        let mut policies: Vec<_> = policies
            .filter(|policy| policy.tier == tier && !policy.rules(direction).is_empty())
            .filter(|policy| self.asks(policy.mode == PolicyMode::Audit))
            .filter(|policy| policy.namespaces.matches(&namespace))
            .filter(|policy| policy.pods.matches(&subject.labels))
            .collect();
        policies.sort_by_key(|policy| (policy.priority, &policy.key));
        policies
    }

    /// The first rule of a tier that matches decides, unless it passes.
    fn ruling(&self, policies: &[&ClusterPolicy], direction: Direction) -> Option<Ruling> {
        for policy in policies {
            for (place, rule) in policy.rules(direction).iter().enumerate() {
                let closed =
                    rule.action != RuleAction::Accept && self.may_match(&rule.matches, direction);
                if !closed && !self.matches(None, &rule.matches, direction) {
                    continue;
                }
                if rule.action == RuleAction::Pass && !closed {
                    return None;
                }
                return Some(Ruling {
                    policy: policy.key.clone(),
                    place,
                    accepts: rule.action == RuleAction::Accept,
                });
            }
        }
        None
    }

    /// True if nobody knows who is at the other end, and the rule may be about a pod there, by its
    /// labels or by the name of a port.
    fn may_match(&self, rule: &Rule, direction: Direction) -> bool {
        if !matches!(self.other(direction), Other::UnknownPod) {
            return false;
        }
        let named = |port: &PortMatch| matches!(port.range, PortRange::Named(_));
        let any_name = direction == Direction::Egress
            && matches!(&rule.ports, Ports::Only(ports) if ports.iter().any(named));
        let pods = |peer: &Peer| matches!(peer, Peer::Pods { .. });
        match &rule.peers {
            Peers::Any => any_name,
            Peers::Only(peers) => {
                peers.iter().any(pods) && (any_name || self.ports_match(&rule.ports, true))
            }
        }
    }

    /// The pod that has an address. Pods of the host's network have none of their own.
    pub fn pod(&self, address: IpAddr) -> Option<&'a Pod> {
        let pods = self.snapshot.pods.values();
        let own =
            pods.filter(|pod| !pod.terminal && !pod.host_network && pod.ips.contains(&address));
        // An address that is given on belongs to the pod that stays; else rather to one of this node.
        let here = |pod: &Pod| pod.node.as_ref() == Some(&self.snapshot.node.name);
        own.min_by_key(|pod| (pod.terminating, !here(pod)))
    }

    fn other(&self, direction: Direction) -> Other<'a> {
        let address = match direction {
            Direction::Ingress => self.src,
            Direction::Egress => self.dst,
        };
        let own = &self.snapshot.node;
        if own.addresses.contains(&address) {
            return Other::Node(&own.name);
        }
        let mut nodes = self.snapshot.nodes.values();
        if let Some(node) =
            nodes.find(|node| node.name != own.name && node.addresses.contains(&address))
        {
            return Other::Node(&node.name);
        }
        if let Some(pod) = self.pod(address) {
            return Other::Pod(pod);
        }
        let of_nodes = self
            .snapshot
            .nodes
            .values()
            .flat_map(|node| &node.pod_ranges);
        let ranges: Vec<_> = own.pod_ranges.iter().chain(of_nodes).collect();
        if ranges.is_empty() || ranges.iter().any(|range| range.contains(&address)) {
            Other::UnknownPod
        } else {
            Other::World
        }
    }

    fn matches(&self, namespace: Option<&Text>, rule: &Rule, direction: Direction) -> bool {
        let (peer, ports) = self.fares(namespace, rule, direction);
        peer && ports
    }

    /// Whether some of a rule's peers is the other end, and whether the port is one of its ports: for
    /// such a peer if there is one.
    fn fares(&self, namespace: Option<&Text>, rule: &Rule, direction: Direction) -> (bool, bool) {
        let address = match direction {
            Direction::Ingress => self.src,
            Direction::Egress => self.dst,
        };
        let other = self.other(direction);
        let Peers::Only(peers) = &rule.peers else {
            return (true, self.ports_match(&rule.ports, true));
        };
        let mut matching = peers
            .iter()
            .filter(|listed| self.peer_matches(namespace, listed, &other, address))
            .peekable();
        if matching.peek().is_none() {
            return (false, self.ports_match(&rule.ports, true));
        }
        let ports = matching.any(|listed| {
            // A name belongs to a pod; towards a block of addresses it means nothing.
            let names = direction == Direction::Ingress || matches!(listed, Peer::Pods { .. });
            self.ports_match(&rule.ports, names)
        });
        (true, ports)
    }

    fn peer_matches(
        &self,
        namespace: Option<&Text>,
        listed: &Peer,
        other: &Other<'_>,
        address: IpAddr,
    ) -> bool {
        match (listed, other) {
            (Peer::Block { cidr, except }, _) => {
                cidr.contains(&address) && !except.iter().any(|out| out.contains(&address))
            }
            (Peer::Domain(pattern), _) => {
                let mut domains = self.snapshot.domains.iter();
                domains.any(|(name, known)| pattern.matches(name) && known.contains(&address))
            }
            (Peer::Pods { namespaces, pods }, Other::Pod(pod)) => {
                let in_namespace = match namespaces {
                    NamespaceScope::Own => Some(&pod.key.namespace) == namespace,
                    NamespaceScope::Matching(selector) => {
                        selector.matches(&self.snapshot.namespace_labels(&pod.key.namespace))
                    }
                };
                in_namespace && pods.matches(&pod.labels)
            }
            (Peer::Nodes(selector), Other::Node(name)) => {
                let node = self.snapshot.nodes.get(*name);
                let labels = node.map(|node| node.labels.clone());
                selector.matches(&labels.unwrap_or_default())
            }
            (Peer::Pods { .. } | Peer::Nodes(_), _) => false,
        }
    }

    fn ports_match(&self, ports: &Ports, names: bool) -> bool {
        match ports {
            Ports::Any => true,
            Ports::Only(ports) => ports
                .iter()
                .any(|matched| self.port_matches(matched, names)),
        }
    }

    fn port_matches(&self, matched: &PortMatch, names: bool) -> bool {
        if self.protocol != Some(matched.protocol) {
            return false;
        }
        match &matched.range {
            PortRange::All => true,
            PortRange::Numbers(first, last) => (*first..=*last).contains(&self.port),
            // The receiving pod's, in either direction.
            PortRange::Named(name) => {
                names
                    && self.pod(self.dst).is_some_and(|pod| {
                        pod.named_ports(name, matched.protocol)
                            .any(|n| n == self.port)
                    })
            }
        }
    }
}
