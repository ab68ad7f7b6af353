//! The life of a flow: states and time-outs.

use crate::net::{sctp, tcp_flags};

/// Where a flow is in its life ([`crate::abi::CtVal::state`]).
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The initiator has sent; no answer yet.
    New = 0,
    /// Both ends have sent (for TCP: the handshake is answered).
    Established = 1,
    /// TCP, SCTP: one end has closed.
    Closing = 2,
    /// TCP, SCTP: both ends have closed; the tuple may be used anew.
    TimeWait = 3,
    /// TCP, SCTP: reset; the tuple may be used anew.
    Reset = 4,
}

impl State {
    /// The state with this number; anything unknown counts as new.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => State::Established,
            2 => State::Closing,
            3 => State::TimeWait,
            4 => State::Reset,
            _ => State::New,
        }
    }

    /// True if a SYN or INIT of the initiator starts a new flow in this entry's place.
    #[inline(always)]
    pub const fn is_reusable(self) -> bool {
        matches!(self, State::TimeWait | State::Reset)
    }
}

/// Time-outs in seconds, as kube-proxy and the kernel's connection tracking set them.
pub mod timeout {
    /// TCP, handshake not answered.
    pub const TCP_NEW: u32 = 60;
    /// TCP, established (kube-proxy's `conntrack.tcpEstablishedTimeout`).
    pub const TCP_ESTABLISHED: u32 = 86_400;
    /// TCP, one end closed (kube-proxy's `conntrack.tcpCloseWaitTimeout`).
    pub const TCP_CLOSING: u32 = 3_600;
    /// TCP, both ends closed.
    pub const TCP_TIME_WAIT: u32 = 120;
    /// TCP, reset.
    pub const TCP_RESET: u32 = 10;
    /// UDP and others, not answered.
    pub const DATAGRAM_NEW: u32 = 30;
    /// UDP and others, answered.
    pub const DATAGRAM_ESTABLISHED: u32 = 120;
    /// SCTP, answered.
    pub const SCTP_ESTABLISHED: u32 = 210;
    /// SCTP, being shut down: as long as its messages may take to be sent again (RFC 9260 section 16).
    pub const SCTP_CLOSING: u32 = 60;
    /// SCTP, shut down.
    pub const SCTP_CLOSED: u32 = 10;
    /// ICMP echo.
    pub const ICMP: u32 = 30;
    /// A flow that policy forbids.
    pub const DENIED: u32 = 10;
}

/// Seconds without a packet after which a flow is over.
#[inline(always)]
pub const fn timeout_secs(proto: u8, state: State, denied: bool) -> u32 {
    use crate::net::proto;
    if denied {
        return timeout::DENIED;
    }
    match (proto, state) {
        (proto::TCP, State::New) => timeout::TCP_NEW,
        (proto::TCP, State::Established) => timeout::TCP_ESTABLISHED,
        (proto::TCP, State::Closing) => timeout::TCP_CLOSING,
        (proto::TCP, State::TimeWait) => timeout::TCP_TIME_WAIT,
        (_, State::Reset) => timeout::TCP_RESET,
        (proto::ICMP | proto::ICMPV6, _) => timeout::ICMP,
        (_, State::New) => timeout::DATAGRAM_NEW,
        (proto::SCTP, State::Closing) => timeout::SCTP_CLOSING,
        (proto::SCTP, State::TimeWait) => timeout::SCTP_CLOSED,
        (proto::SCTP, _) => timeout::SCTP_ESTABLISHED,
        _ => timeout::DATAGRAM_ESTABLISHED,
    }
}

/// True if a flow last seen at `last_seen` (low 32 bits of jiffies) is over at `now`.
#[inline(always)]
pub const fn is_expired(last_seen: u32, now: u32, secs: u32, hz: u32) -> bool {
    // A time before `last_seen`, from another CPU's later clock, is an age of nearly 2^32.
    let age = now.wrapping_sub(last_seen);
    age as i32 > 0 && age > secs.saturating_mul(hz)
}

/// The state after a TCP packet (RFC 9293 section 3.3.2, seen from the middle).
#[inline(always)]
pub const fn next_tcp(state: State, flags: u8, from_responder: bool) -> State {
    if flags & tcp_flags::RST != 0 {
        return State::Reset;
    }
    match state {
        State::New if from_responder && flags & tcp_flags::FIN == 0 => State::Established,
        State::New | State::Established if flags & tcp_flags::FIN != 0 => State::Closing,
        _ => state,
    }
}

/// The [`State`]s, as numbers of four bits, that SCTP's first sixteen chunk types bring about at least. One
/// word: a table would be read at an index that the kernel's verifier takes for unbounded.
const AFTER_CHUNK: u64 = (State::Reset as u64) << (4 * sctp::ABORT)
    | (State::Closing as u64) << (4 * sctp::SHUTDOWN)
    | (State::Closing as u64) << (4 * sctp::SHUTDOWN_ACK)
    | (State::TimeWait as u64) << (4 * sctp::SHUTDOWN_COMPLETE);

/// The number of the state after an SCTP packet with this first chunk (RFC 9260 section 4, seen from the
/// middle): an association only ever comes nearer to its end.
#[inline(always)]
pub const fn next_sctp(state: u8, chunk: u8) -> u8 {
    if chunk >= 16 {
        return state;
    }
    let least = (AFTER_CHUNK >> (4 * chunk as u32)) as u8 & 0xf;
    if least > state { least } else { state }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_association_only_ends() {
        let after = |state: State, chunk| State::from_number(next_sctp(state as u8, chunk));
        assert_eq!(after(State::New, sctp::INIT), State::New);
        assert_eq!(after(State::Established, sctp::SHUTDOWN), State::Closing);
        assert_eq!(after(State::Closing, sctp::SHUTDOWN_ACK), State::Closing);
        assert_eq!(after(State::TimeWait, sctp::SHUTDOWN), State::TimeWait);
        for state in [
            State::New,
            State::Established,
            State::Closing,
            State::TimeWait,
            State::Reset,
        ] {
            assert_eq!(after(state, sctp::ABORT), State::Reset);
            for chunk in [0, 15, 16, 0x80 | sctp::ABORT, u8::MAX] {
                assert_eq!(after(state, chunk), state);
            }
        }
    }
    use crate::net::proto;

    #[test]
    fn a_handshake_establishes() {
        let state = next_tcp(State::New, tcp_flags::SYN, false);
        assert_eq!(state, State::New);
        let state = next_tcp(state, tcp_flags::SYN | tcp_flags::ACK, true);
        assert_eq!(state, State::Established);
        assert_eq!(next_tcp(state, tcp_flags::ACK, false), State::Established);
    }

    #[test]
    fn a_reset_ends_any_state() {
        for number in 0..=4 {
            let state = State::from_number(number);
            assert_eq!(next_tcp(state, tcp_flags::RST, true), State::Reset);
        }
        assert!(State::Reset.is_reusable());
    }

    #[test]
    fn expiry_survives_the_wrap_of_jiffies() {
        let hz = 250;
        assert!(!is_expired(u32::MAX - 100, 100, 30, hz));
        assert!(is_expired(u32::MAX - 100, 31 * hz, 30, hz));
        assert!(
            !is_expired(1000, 999, 30, hz),
            "another CPU's clock is behind"
        );
    }

    #[test]
    fn kube_proxy_time_outs() {
        assert_eq!(timeout_secs(proto::TCP, State::Established, false), 86_400);
        assert_eq!(timeout_secs(proto::TCP, State::Closing, false), 3_600);
        assert_eq!(timeout_secs(proto::UDP, State::New, false), 30);
        assert_eq!(timeout_secs(proto::TCP, State::Established, true), 10);
    }
}
