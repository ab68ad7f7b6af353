//! Frames in, and what came of them.

use dataplane_common::{
    abi::{Hook, hook},
    verdict::DropReason,
};

use crate::{
    frame::Frame,
    netns::UPLINK,
    sys::Input,
    world::{Host, World, ifindex},
};

/// `TCX_NEXT`.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;
/// `TC_ACT_REDIRECT`.
const REDIRECT: i32 = 7;

/// Where a frame is given in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// As sent by a pod.
    FromPod(Host),
    /// As forwarded to a pod, from a pod of this node or from the uplink.
    ToPod(Host, Option<Host>),
    /// As sent to a pod by the node itself.
    HostToPod(Host),
    /// As come in by the uplink.
    FromNet,
    /// As forwarded to the uplink for a pod.
    ToNet(Host),
    /// As sent to the uplink by the node itself.
    HostToNet,
}

/// What a program said and did.
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct Seen {
    /// Where, and which frame.
    what: String,
    code: i32,
    bytes: Vec<u8>,
    drops: Vec<DropReason>,
}

impl At {
    fn input(self) -> (Hook, Input) {
        let at = |ifindex, ingress_ifindex| Input {
            ifindex,
            ingress_ifindex,
            ..Input::default()
        };
        match self {
            At::FromPod(pod) => (hook::FROM_POD, at(ifindex(pod), ifindex(pod))),
            At::ToPod(pod, from) => (hook::TO_POD, at(ifindex(pod), from.map_or(UPLINK, ifindex))),
            At::HostToPod(pod) => (hook::TO_POD, at(ifindex(pod), 0)),
            At::FromNet => (hook::FROM_NET, at(UPLINK, UPLINK)),
            At::ToNet(pod) => (hook::TO_NET, at(UPLINK, ifindex(pod))),
            At::HostToNet => (hook::TO_NET, at(UPLINK, 0)),
        }
    }
}

impl World {
    /// Gives a frame in.
    pub fn send(&self, at: At, frame: &Frame) -> Seen {
        self.send_bytes(at, &frame.bytes())
            .named(format!("{at:?}: {frame:?}"))
    }

    /// As [`send`](Self::send), as if a device had summed the frame: what is written to it must
    /// leave that sum right, and its hop limit must not be counted down.
    pub fn send_summed(&self, at: At, frame: &Frame) -> Seen {
        let (hook, input) = at.input();
        let input = Input {
            summed: true,
            ..input
        };
        self.run(hook, &frame.bytes(), input)
            .named(format!("{at:?}, summed: {frame:?}"))
    }

    /// As [`send`](Self::send), of a frame that a device is to make packets of.
    pub fn send_segmented(&self, at: At, frame: &Frame, segment: u32) -> Seen {
        let (hook, input) = at.input();
        let input = Input { segment, ..input };
        self.run(hook, &frame.bytes(), input)
            .named(format!("{at:?}, in segments of {segment}: {frame:?}"))
    }

    /// Gives octets in.
    pub fn send_bytes(&self, at: At, bytes: &[u8]) -> Seen {
        let (hook, input) = at.input();
        self.run(hook, bytes, input)
            .named(format!("{at:?}: {bytes:02x?}"))
    }

    /// As [`send`](Self::send), with only the first octets in linear memory; `None` where the kernel
    /// has no such test runs.
    pub fn send_linear(&self, at: At, frame: &Frame, linear: u32) -> Option<Seen> {
        let (hook, input) = at.input();
        if !self
            .kernel
            .takes_paged(hook, &frame.bytes(), Input { linear, ..input })
        {
            return None;
        }
        let input = Input { linear, ..input };
        Some(
            self.run(hook, &frame.bytes(), input)
                .named(format!("{at:?}, {linear} linear: {frame:?}")),
        )
    }

    fn run(&self, hook: Hook, bytes: &[u8], input: Input) -> Seen {
        let before = self.kernel.drops();
        let (code, bytes) = self.kernel.run(hook, bytes, input);
        let after = self.kernel.drops();
        let counted = before
            .iter()
            .zip(&after)
            .flat_map(|((reason, old), (_, new))| {
                std::iter::repeat_n(*reason, (new - old) as usize)
            });
        let drops = counted.collect();
        Seen {
            what: String::new(),
            code,
            bytes,
            drops,
        }
    }
}

impl Seen {
    fn named(self, what: String) -> Seen {
        Seen { what, ..self }
    }

    /// It passed on to the stack, as `want`.
    #[track_caller]
    pub fn passes(self, want: &Frame) {
        assert_eq!(&self.passed(), want, "{}", self.what);
    }

    /// It was redirected, as `want`.
    #[track_caller]
    pub fn redirects(self, want: &Frame) {
        assert_eq!(&self.redirected(), want, "{}", self.what);
    }

    /// It was dropped, and counted once.
    #[track_caller]
    pub fn drops(self, reason: DropReason) {
        assert_eq!(
            (self.code, &self.drops[..]),
            (SHOT, &[reason][..]),
            "{}",
            self.what
        );
    }

    /// It was answered with `want`, and counted once as dropped.
    #[track_caller]
    pub fn refused(self, reason: DropReason, want: &Frame) {
        assert_eq!(
            (self.code, &self.drops[..]),
            (REDIRECT, &[reason][..]),
            "{}",
            self.what
        );
        assert_eq!(&self.frame(), want, "{}", self.what);
    }

    /// The frame that passed on to the stack.
    #[track_caller]
    pub fn passed(&self) -> Frame {
        assert_eq!(
            (self.code, &self.drops[..]),
            (NEXT, &[][..]),
            "{}",
            self.what
        );
        self.frame()
    }

    /// The frame that was redirected.
    #[track_caller]
    pub fn redirected(&self) -> Frame {
        assert_eq!(
            (self.code, &self.drops[..]),
            (REDIRECT, &[][..]),
            "{}",
            self.what
        );
        self.frame()
    }

    /// The octets of the frame that was redirected.
    #[track_caller]
    pub fn redirected_bytes(self) -> Vec<u8> {
        assert_eq!(
            (self.code, &self.drops[..]),
            (REDIRECT, &[][..]),
            "{}",
            self.what
        );
        self.bytes
    }

    /// Why it was answered with a refusal, if it was.
    pub fn refusal(&self) -> Option<DropReason> {
        self.drops
            .first()
            .copied()
            .filter(|_| self.code == REDIRECT)
    }

    /// True if it was not dropped.
    pub fn is_let_through(&self) -> bool {
        self.code != SHOT
    }

    /// Why it was dropped: exactly one reason, or none if it was not.
    #[track_caller]
    pub fn reason(&self) -> Option<DropReason> {
        assert!(
            [NEXT, SHOT, REDIRECT].contains(&self.code),
            "{}: code {}",
            self.what,
            self.code
        );
        assert!(self.drops.len() <= 1, "{}: {:?}", self.what, self.drops);
        assert_eq!(self.code == SHOT, !self.drops.is_empty(), "{}", self.what);
        self.drops.first().copied()
    }

    /// The frame as it came out, wherever it goes.
    #[track_caller]
    pub fn frame(&self) -> Frame {
        match Frame::read(&self.bytes) {
            Ok(frame) => frame,
            Err(error) => panic!("{}\ncame out as {:02x?}: {error}", self.what, self.bytes),
        }
    }
}
