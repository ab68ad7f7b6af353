//! Connection tracking: one entry for each flow, a second one for each flow through a frontend.

use super::{Addr4, Addr6, Address, Port, abi};

/// A flow's key: protocol and both ends, sorted, so that both directions find one entry.
///
/// ICMP echo has its identifier as both ports.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CtKey<A> {
    /// The end with the smaller (address, port).
    pub a: A,
    /// The other end.
    pub b: A,
    /// Port of `a`.
    pub a_port: Port,
    /// Port of `b`.
    pub b_port: Port,
    /// IP protocol number.
    pub proto: u8,
    /// 0; 1 for a direct flow that another flow's translated tuple displaced.
    pub layer: u8,
    /// Explicit padding.
    pub reserved: u16,
}

impl<A: Address> CtKey<A> {
    /// The key of a packet, and whether its source is the key's `b` end.
    #[inline(always)]
    pub fn sorted(src: A, dst: A, src_port: Port, dst_port: Port, proto: u8) -> (Self, bool) {
        let source_is_b = src > dst || (src == dst && src_port > dst_port);
        let (a, b, a_port, b_port) = if source_is_b {
            (dst, src, dst_port, src_port)
        } else {
            (src, dst, src_port, dst_port)
        };
        let key = Self {
            a,
            b,
            a_port,
            b_port,
            proto,
            layer: 0,
            reserved: 0,
        };
        (key, source_is_b)
    }
}

/// A flow.
///
/// The *main* entry stands under the tuple on the backend's side of all translation. A flow through
/// a frontend has a *front* entry too ([`ct_flags::FRONT`]), under the tuple its client sends; it
/// says how to translate and has no life of its own: it is valid as long as its main entry is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CtVal<A> {
    /// Front: the backend. Main: the frontend's address, restored as the source of replies.
    pub nat_dst: A,
    /// Front: the translated source. Main: the client's source, restored as the target of replies.
    pub nat_src: A,
    /// Port of `nat_dst`.
    pub nat_dst_port: Port,
    /// Port of `nat_src`.
    pub nat_src_port: Port,
    /// [`ct_flags`].
    pub flags: u16,
    /// [`crate::decide::conntrack::State`] as a number.
    pub state: u8,
    /// 0, or the [`crate::verdict::DropReason`] of a flow that policy forbids: it stays as a
    /// tombstone, so that a packet the other way is not judged as a flow of its own.
    pub denied: u8,
    /// The policy epoch this flow was judged in.
    pub epoch: u32,
    /// Time of the last packet, in the low 32 bits of jiffies.
    pub last_seen: u32,
    /// The frontend (revnat), 0 for a direct flow.
    pub frontend: u32,
    /// The backend's index.
    pub backend: u32,
    /// The backend's generation when it was chosen.
    pub generation: u32,
    /// Host-side device of the initiator's pod, 0 if it is not a pod of this node.
    pub initiator_ifindex: u32,
    /// Host-side device of the responder's pod, 0 if it is not a pod of this node; [`super::DNS_PROXY`] if
    /// what the initiator sends goes there, which answers in the responder's name.
    pub responder_ifindex: u32,
    /// The rule that decided the initiator's egress, 0 for none.
    pub egress_rule: u32,
    /// The rule that decided the responder's ingress, 0 for none.
    pub ingress_rule: u32,
    /// The rule by which a policy in audit would deny the flow; 0 for none.
    pub audit_rule: u32,
}

/// Bits of [`CtVal::flags`].
pub mod ct_flags {
    /// The initiator is the key's `b` end.
    pub const INITIATOR_IS_B: u16 = 1;
    /// A front entry.
    pub const FRONT: u16 = 1 << 1;
    /// The responder has answered.
    pub const REPLIED: u16 = 1 << 2;
    /// The destination is translated (the flow has a frontend).
    pub const DNAT: u16 = 1 << 3;
    /// The source is translated.
    pub const SNAT: u16 = 1 << 4;
    /// TCP: the initiator has sent its FIN. Of a connection that both ends have closed, only the first has its
    /// flag.
    pub const INITIATOR_CLOSED: u16 = 1 << 5;
    /// Both directions go from device to device, past the host's stack; without it, neither does.
    pub const REDIRECT: u16 = 1 << 6;
    /// The initiator is the host itself.
    pub const HOST: u16 = 1 << 7;
    /// The initiator is outside: its packets come by an uplink.
    pub const OUTSIDE: u16 = 1 << 8;
    /// TCP: the responder has sent its FIN, as for `INITIATOR_CLOSED`.
    pub const RESPONDER_CLOSED: u16 = 1 << 9;
    /// The flow was joined in its middle: which end began it is not known.
    pub const MIDSTREAM: u16 = 1 << 10;
    /// Counted as half open, for the initiator's pod and the node.
    pub const HALF_OPEN: u16 = 1 << 11;
    /// TCP: the flow is reset when its backend is gone.
    pub const RESETS: u16 = 1 << 12;
    /// The pod at an end was not known when the flow was judged.
    pub const UNPOLICED: u16 = 1 << 13;
    /// Policies in audit would deny the initiator's egress.
    pub const AUDIT_EGRESS: u16 = 1 << 14;
    /// Policies in audit would deny the responder's ingress.
    pub const AUDIT_INGRESS: u16 = 1 << 15;
    /// Policies in audit would deny the flow.
    pub const AUDIT: u16 = AUDIT_EGRESS | AUDIT_INGRESS;
}

/// A fragmented datagram (RFC 791 section 3.2, RFC 8200 section 4.5).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragKey<A> {
    /// Source address as sent.
    pub src: A,
    /// Destination address as sent.
    pub dst: A,
    /// The identification field; 16 bits in IPv4.
    pub id: u32,
    /// IP protocol number.
    pub proto: u32,
}

/// The ports that only a datagram's first fragment carries.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragVal {
    /// Source port.
    pub src_port: Port,
    /// Destination port.
    pub dst_port: Port,
}

abi! {
    CtKey<Addr4> = 16,
    CtKey<Addr6> = 40,
    CtVal<Addr4> = 56,
    CtVal<Addr6> = 80,
    FragKey<Addr4> = 16,
    FragKey<Addr6> = 40,
    FragVal = 4,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_have_one_key() {
        let (x, y) = (Addr4(7), Addr4(9));
        let (p, q) = (Port::new(1000), Port::new(80));
        let (forward, forward_b) = CtKey::sorted(x, y, p, q, 6);
        let (back, back_b) = CtKey::sorted(y, x, q, p, 6);
        assert_eq!(forward, back);
        assert_ne!(forward_b, back_b);
    }

    #[test]
    fn one_address_talking_to_itself_is_ordered_by_port() {
        let x = Addr4(7);
        let (forward, forward_b) = CtKey::sorted(x, x, Port::new(1), Port::new(2), 17);
        let (back, back_b) = CtKey::sorted(x, x, Port::new(2), Port::new(1), 17);
        assert_eq!(forward, back);
        assert_ne!(forward_b, back_b);
    }
}
