//! Verdicts and drop reasons.

/// What the packet path decides for a packet that is not dropped.
#[must_use]
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// On to the next program and the host's stack.
    Pass = 0,
    /// To another device, as the redirect helper was told.
    Redirect = 1,
}

/// The packet path's verdict on a packet.
///
/// Both sides are one word that is always set: no register holds an undefined value that the
/// kernel's verifier would refuse.
pub type Verdict = Result<Action, DropReason>;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:expr])+ $name:ident = $number:expr, $text:expr;)+) => {
        /// Why a packet is dropped or a connection refused. Numbers are only ever added.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl DropReason {
            /// All reasons.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];

            /// The reason's name in output and metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(DropReason::$name => $text,)+
                }
            }

            /// The reason with this number.
            pub const fn from_code(code: u32) -> Option<DropReason> {
                match code {
                    $($number => Some(DropReason::$name),)+
                    _ => None,
                }
            }
        }
    };
}

drop_reasons! {
    /// The packet ends before its headers do, or a length field contradicts it.
    Truncated = 1, "truncated";
    /// A header field is not valid.
    Malformed = 2, "malformed";
    /// The link-layer protocol is not one a policed pod may use.
    UnknownEthertype = 3, "unknown-ethertype";
    /// More IPv6 extension headers than are followed, or one that is not known.
    ExtensionHeader = 4, "extension-header";
    /// The pod sent from an address that is not its own.
    SourceSpoofed = 5, "source-spoofed";
    /// The device's pod is not known yet, and it is closed until then.
    PodClosed = 6, "pod-closed";
    /// Policy forbids what the pod sends.
    PolicyEgress = 7, "policy-egress";
    /// Policy forbids what the pod receives.
    PolicyIngress = 8, "policy-ingress";
    /// A TCP packet in the middle of a connection that is not known.
    NoConnection = 9, "no-connection";
    /// An ICMP error about a packet of no known flow.
    IcmpUnrelated = 10, "icmp-unrelated";
    /// A later fragment of a datagram whose first fragment was not seen.
    FragmentUnknown = 11, "fragment-unknown";
    /// The frontend has no backend: refused.
    NoBackend = 12, "no-backend";
    /// The frontend's traffic policy leaves no backend on this node.
    NoLocalBackend = 13, "no-local-backend";
    /// The flow table has no room.
    ConntrackFull = 14, "conntrack-full";
    /// The pod, or the node, has too many unanswered flows.
    HalfOpenLimit = 15, "half-open-limit";
    /// The tuple belongs to another live flow, and no other could be found.
    TupleClash = 16, "tuple-clash";
    /// No port is left for the translated source.
    SnatExhausted = 17, "snat-exhausted";
    /// A router advertisement or redirect from a pod (CVE-2020-10749).
    RogueNeighbour = 18, "rogue-neighbour";
    /// An ARP or neighbour-discovery message that claims another's address.
    NeighbourSpoofed = 19, "neighbour-spoofed";
    /// The packet could not be rewritten.
    Rewrite = 20, "rewrite-failed";
    /// The route for a translated packet leads nowhere.
    NoRoute = 21, "no-route";
    /// A packet from outside claims the address of a pod of this node.
    OutsideSpoofed = 22, "outside-spoofed";
    /// An internal limit that is never met; counted in case it is.
    Internal = 23, "internal";
    /// The client is outside the Service's source ranges.
    SourceRange = 24, "source-range";
    /// The address is a Service's, and it does not answer to this.
    NoFrontend = 25, "no-frontend";
    /// The connection's backend is gone, and its Service asks for a reset.
    BackendRemoved = 26, "backend-removed";
    /// The packet does not fit the way it would go: its sender is told how much does.
    TooBig = 27, "too-big";
    /// The packet is at its last hop: its sender is told.
    HopLimit = 28, "hop-limit";
    /// A query that goes through the DNS proxy, and there is none.
    NoDnsProxy = 29, "no-dns-proxy";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::capacity;

    #[test]
    fn codes_round_trip_and_fit_the_counters() {
        for &reason in DropReason::ALL {
            assert_eq!(DropReason::from_code(reason as u32), Some(reason));
            assert!((reason as u32) < capacity::DROPS);
        }
        assert_eq!(DropReason::from_code(0), None);
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
