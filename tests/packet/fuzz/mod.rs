//! Random packets of random clusters, through the real programs: what they let pass is what the
//! oracle lets pass.
//!
//! `SLUICE_FUZZ_SEED` repeats a run from the seed that its failure names; `SLUICE_LONG` asks for
//! 10⁸ packets.

mod node;
mod reading;
mod shape;

use std::{collections::BTreeSet, env, net::IpAddr};

use dataplane_common::{
    abi::{Hook, Port, ct_flags, hook},
    verdict::DropReason,
};
use dataplane_model::{
    oracle,
    snapshot::{Interface, Object, PolicyMode, Protocol},
};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use sluice_generate::{
    cluster,
    dice::{Dice, given_seed, new_seed},
    probes,
};

use self::{node::Node, reading::Reading, shape::Shape};
use crate::{
    frame::{Body, Frame},
    kernel::{FUZZ_CONNTRACK, Mode},
    netns::UPLINK,
    sys::Input,
};

/// Packets of one cluster.
const PACKETS_PER_CLUSTER: usize = 2_000;
/// Clusters whose flows the conntrack maps have room for: an answer opens none, a fragment may.
const CLUSTERS_PER_TABLE: usize = FUZZ_CONNTRACK as usize / (2 * PACKETS_PER_CLUSTER);
/// Packets of a run, in all modes together.
const PACKETS: usize = 1_000_000;
/// Packets of a long run.
const PACKETS_LONG: usize = 100_000_000;
/// Seeds that are tried in every run, besides a new one: each has found a difference once.
const KEPT: [u64; 2] = [1, 194_482];

/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;
/// `TC_ACT_REDIRECT`.
const REDIRECT: i32 = 7;

/// Frames that are redirected where they can be.
#[test]
fn redirected_packets_pass_where_the_oracle_lets_them() {
    run(Mode::FuzzRedirect);
}

/// Frames that go through the host's stack.
#[test]
fn packets_through_the_stack_pass_where_the_oracle_lets_them() {
    run(Mode::FuzzStack);
}

fn run(mode: Mode) {
    let packets = if env::var_os("SLUICE_LONG").is_some() {
        PACKETS_LONG
    } else {
        PACKETS
    };
    let mut clusters = (packets / 2).div_ceil(PACKETS_PER_CLUSTER);
    let seeds = match given_seed("SLUICE_FUZZ_SEED") {
        Some(seed) => vec![seed],
        None => {
            clusters /= KEPT.len() + 1;
            KEPT.into_iter().chain([new_seed()]).collect()
        }
    };
    for seed in seeds {
        Run::new(mode, seed).over(clusters);
    }
}

/// A run of random packets.
struct Run {
    seed: u64,
    node: Node,
    dice: Dice,
    /// Senders and receivers of first fragments.
    begun: BTreeSet<(IpAddr, IpAddr)>,
    /// What damaged packets said: one the other way may be an answer.
    asked: BTreeSet<reading::Tuple>,
}

/// A way that a packet goes, and what is expected of it.
struct Case<'a> {
    shape: Shape,
    sender: Option<&'a Interface>,
    receiver: Option<&'a Interface>,
    from_host: bool,
    is_allowed: bool,
}

/// How far a frame gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Dropped,
    /// A program sends it on, to whom it is addressed.
    Leaves,
    /// The pod gets it that its sender meant.
    Arrives,
}

impl Run {
    fn new(mode: Mode, seed: u64) -> Run {
        Run {
            seed,
            node: Node::new(mode),
            dice: Dice::new(seed),
            begun: BTreeSet::new(),
            asked: BTreeSet::new(),
        }
    }

    fn over(&mut self, clusters: usize) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        for cluster in 0..clusters {
            if cluster % CLUSTERS_PER_TABLE == 0 {
                self.node.kernel().forget_flows();
                self.begun.clear();
                self.asked.clear();
            }
            let tree = cluster::objects().new_tree(&mut runner);
            let mut objects = tree.expect("the strategies reject nothing").current();
            objects.retain(is_of_policy);
            self.node.become_like(objects);
            let pairs = self.pairs();
            if pairs.is_empty() {
                continue;
            }
            for _ in 0..PACKETS_PER_CLUSTER {
                let pair = self.dice.pick(&pairs);
                self.packet(pair);
            }
        }
    }

    /// Pairs of addresses of which at least one is a pod's of this node.
    fn pairs(&self) -> Vec<(IpAddr, IpAddr)> {
        let snapshot = self.node.snapshot();
        let is_here = |address| probes::is_here(snapshot, address);
        let mut pairs = probes::pairs(snapshot);
        pairs.retain(|(src, dst)| is_here(*src) || is_here(*dst));
        pairs
    }

    fn packet(&mut self, (src, dst): (IpAddr, IpAddr)) {
        let (sender, receiver) = (self.node.device(src), self.node.device(dst));
        let Some(device) = sender.or(receiver) else {
            return;
        };
        let shape = shape::first(&mut self.dice, src, dst, device);
        let case = Case {
            sender,
            receiver,
            from_host: self.node.snapshot().node.addresses.contains(&src),
            is_allowed: self.allows(src, dst, shape.protocol, shape.port),
            shape,
        };
        let answers = case.shape.protocol.is_none() && self.asked.contains(&(dst, src, None, 0, 0));
        let damaged = self.dice.once_in(4);
        if damaged || answers {
            let octets = shape::damaged(&mut self.dice, case.shape.frame.bytes());
            self.damaged(&case, &octets);
            let read = reading::packet(&octets);
            let ends = |packet: reading::Packet| (packet.src, packet.dst);
            self.begun
                .extend(read.filter(|packet| packet.is_first).map(ends));
            self.asked.extend(read.map(|packet| packet.tuple()));
        } else {
            let answered = self.dice.once_in(4);
            self.whole(&case, answered);
        }
    }

    /// A packet as it should be: exactly the oracle's verdict.
    fn whole(&self, case: &Case<'_>, answered: bool) {
        let frame = &case.shape.frame;
        for part in parts(frame) {
            let passed = self.fate(case, &part.bytes()) != Fate::Dropped;
            // What opens no flow passes only in one that an earlier packet opened.
            if passed != case.is_allowed && (passed || case.shape.opens) {
                let drops = self.drops(|| self.fate(case, &part.bytes()));
                panic!(
                    "seed {}: {part:?}\npasses: {passed}; once more: {drops:?}",
                    self.seed
                );
            }
        }
        let is_open = case.is_allowed && case.shape.opens && frame.src != frame.dst;
        if !is_open {
            return;
        }
        self.audited(case);
        if !answered {
            return;
        }
        let answer = |device| shape::answer(frame, device).bytes();
        let passed = match (case.receiver, case.sender) {
            (Some(device), _) => self.sent_by(device, &answer(device)).0 != SHOT,
            (None, Some(device)) => self.arrives(device, UPLINK, &answer(device)),
            (None, None) => return,
        };
        assert!(passed, "seed {}: the answer to {frame:?}", self.seed);
    }

    /// An open flow with ports bears what policies in audit say of it.
    fn audited(&self, case: &Case<'_>) {
        let (shape, kernel) = (&case.shape, self.node.kernel());
        let Some(protocol) = shape.protocol else {
            return;
        };
        let (src, dst) = (shape.frame.src, shape.frame.dst);
        let ends = ((src, Port::new(shape.from)), (dst, Port::new(shape.port)));
        let flow = kernel.flow_in(0, protocol.number(), ends);
        let snapshot = self.node.snapshot();
        let asked = oracle::Flow {
            snapshot,
            src,
            dst,
            protocol: shape.protocol,
            port: shape.port,
            mode: PolicyMode::Audit,
        };
        let verdict = asked.verdict();
        let expected = if probes::is_here(snapshot, src) && !verdict.egress.is_allowed() {
            ct_flags::AUDIT_EGRESS
        } else if probes::is_here(snapshot, dst) && !verdict.ingress.is_allowed() {
            ct_flags::AUDIT_INGRESS
        } else {
            0
        };
        let noted = flow.map(|flow| flow.flags & ct_flags::AUDIT);
        assert_eq!(
            noted,
            Some(expected),
            "seed {}: audit of {:?}",
            self.seed,
            shape.frame
        );
    }

    /// A packet that is not as it should be: nothing passes that the oracle would not let pass if it
    /// is read as it stands.
    fn damaged(&self, case: &Case<'_>, octets: &[u8]) {
        let fate = self.fate(case, octets);
        if fate == Fate::Dropped {
            return;
        }
        let why = self.forbids(case, fate, octets);
        assert_eq!(
            why, None,
            "seed {}: {octets:02x?}\nmade of {:?}",
            self.seed, case.shape.frame
        );
    }

    /// Why a frame must not pass.
    fn forbids(&self, case: &Case<'_>, fate: Fate, octets: &[u8]) -> Option<&'static str> {
        let (src, dst) = (case.shape.frame.src, case.shape.frame.dst);
        let read = reading::read(octets);
        let (from, to) = match read {
            Reading::Neighbour => return None,
            Reading::Broken => return Some("it cannot be read"),
            Reading::Later(from, to) => (from, to),
            Reading::Packet(packet) => (packet.src, packet.dst),
        };
        if case.sender.is_some() && from != src {
            return Some("its source is not its sender");
        }
        if is_to_many(to) {
            return None;
        }
        if case.sender.is_none() && to != dst && fate == Fate::Arrives {
            // A bridge may flood it; a pod that nothing isolates may see it.
            let pod = oracle::judge(self.node.snapshot(), src, dst, None, 0).ingress;
            return pod.concerned.then_some("it is for another");
        }
        let Reading::Packet(packet) = read else {
            return (!self.begun.contains(&(from, to)))
                .then_some("its first fragment was never sent");
        };
        if packet.is_error {
            return Some("it is about no packet that was sent");
        }
        // Without ports, it may be an answer to any.
        let answers = packet.protocol.is_none() || self.asked.contains(&packet.answered());
        let allowed = self.allows(from, to, packet.protocol, packet.port)
            || (answers && self.allows(to, from, packet.protocol, packet.from));
        (!allowed).then_some("policy forbids it")
    }

    /// True if the ends that are on this node may send and get it.
    fn allows(&self, src: IpAddr, dst: IpAddr, protocol: Option<Protocol>, port: u16) -> bool {
        let snapshot = self.node.snapshot();
        let verdict = oracle::judge(snapshot, src, dst, protocol, port);
        (!probes::is_here(snapshot, src) || verdict.egress.is_allowed())
            && (!probes::is_here(snapshot, dst) || verdict.ingress.is_allowed())
    }

    /// How far a frame gets from where it is sent, or comes in.
    fn fate(&self, case: &Case<'_>, octets: &[u8]) -> Fate {
        let arrives = |receiver: &Interface, from: u32, octets: &[u8]| {
            if self.arrives(receiver, from, octets) {
                Fate::Arrives
            } else {
                Fate::Dropped
            }
        };
        match (case.sender, case.receiver) {
            (Some(sender), receiver) => {
                let (code, out) = self.sent_by(sender, octets);
                match receiver {
                    _ if code == SHOT => Fate::Dropped,
                    Some(receiver) if code != REDIRECT && receiver.ifindex != sender.ifindex => {
                        arrives(receiver, sender.ifindex, &out)
                    }
                    _ => Fate::Leaves,
                }
            }
            (None, Some(receiver)) if case.from_host => arrives(receiver, 0, octets),
            (None, Some(receiver)) => {
                let (code, out) = self.run(hook::FROM_NET, UPLINK, UPLINK, octets);
                match code {
                    SHOT => Fate::Dropped,
                    REDIRECT => Fate::Leaves,
                    _ => arrives(receiver, UPLINK, &out),
                }
            }
            (None, None) => unreachable!("one end is a pod of this node"),
        }
    }

    /// Why packets are dropped meanwhile.
    fn drops(&self, meanwhile: impl FnOnce() -> Fate) -> Vec<DropReason> {
        let before = self.node.kernel().drops();
        meanwhile();
        let after = self.node.kernel().drops();
        let counts = before.iter().zip(&after);
        let new = counts.filter(|((_, old), (_, new))| new > old);
        new.map(|((reason, _), _)| *reason).collect()
    }

    fn sent_by(&self, device: &Interface, octets: &[u8]) -> (i32, Vec<u8>) {
        self.run(hook::FROM_POD, device.ifindex, device.ifindex, octets)
    }

    fn arrives(&self, device: &Interface, from: u32, octets: &[u8]) -> bool {
        self.run(hook::TO_POD, device.ifindex, from, octets).0 != SHOT
    }

    fn run(&self, hook: Hook, ifindex: u32, ingress_ifindex: u32, octets: &[u8]) -> (i32, Vec<u8>) {
        let input = Input {
            ifindex,
            ingress_ifindex,
            ..Input::default()
        };
        self.node.kernel().run(hook, octets, input)
    }
}

/// Objects that policy depends on: what Services do to packets is another matter.
fn is_of_policy(object: &Object) -> bool {
    !matches!(
        object,
        Object::Service(_) | Object::Slice(_) | Object::Route(_)
    )
}

/// True for multicast and broadcast.
fn is_to_many(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// The packet, or two fragments of it if it is large enough and its port says so.
fn parts(frame: &Frame) -> Vec<Frame> {
    match &frame.body {
        Body::Udp { src, data, .. } if data.len() > 24 && src % 2 == 0 => {
            frame.cut(*src, 16).into()
        }
        _ => vec![frame.clone()],
    }
}
