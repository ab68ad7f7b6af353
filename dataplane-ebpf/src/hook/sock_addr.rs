//! cgroup programs: processes of the host reach Services at connect or send, without a packet being
//! translated. They act for sockets of the agent's own network namespace only.

use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::generated as helper, macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use dataplane_common::{
    abi::{
        Addr4, Addr6, Address, Port, SockRevKey, SockRevVal, config_flags, scope, service_flags,
    },
    net::proto,
    verdict::DropReason,
};

use crate::{
    family::{Family, V4, V6},
    maps::{self, Table},
    observe,
    stage::service::{self, Choice},
};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

macro_rules! sock_addr {
    ($($name:ident = $handler:ident;)+) => {
        $(
            /// The cgroup hook of this name.
            #[cgroup_sock_addr($name)]
            pub fn $name(ctx: SockAddrContext) -> i32 {
                $handler(Socket { ctx: ctx.sock_addr })
            }
        )+
    };
}

sock_addr! {
    connect4 = dial4;
    connect6 = dial6;
    sendmsg4 = dial4;
    sendmsg6 = dial6;
    recvmsg4 = restore4;
    recvmsg6 = restore6;
    getpeername4 = restore4;
    getpeername6 = restore6;
}

/// A socket call's address, as the hook may change it.
#[derive(Clone, Copy)]
struct Socket {
    ctx: *mut bpf_sock_addr,
}

impl Socket {
    #[inline(always)]
    fn is_ours(self) -> bool {
        // SAFETY: a valid context.
        let cookie = unsafe { helper::bpf_get_netns_cookie(self.ctx.cast()) };
        maps::enabled(config_flags::SERVICES) && cookie == maps::netns_cookie()
    }

    #[inline(always)]
    fn cookie(self) -> u64 {
        // SAFETY: a valid context.
        unsafe { helper::bpf_get_socket_cookie(self.ctx.cast()) }
    }

    #[inline(always)]
    fn proto(self) -> u8 {
        // SAFETY: the kernel passes a valid context for the whole run of the program.
        unsafe { (*self.ctx).protocol as u8 }
    }

    #[inline(always)]
    fn port(self) -> Port {
        // SAFETY: as in `proto`.
        Port(unsafe { (*self.ctx).user_port } as u16)
    }

    #[inline(always)]
    fn set_port(self, port: Port) {
        // SAFETY: as in `proto`; the kernel allows this field to be written.
        unsafe { (&raw mut (*self.ctx).user_port).write_volatile(port.0 as u32) };
    }

    #[inline(always)]
    fn addr4(self) -> Addr4 {
        // SAFETY: as in `proto`.
        Addr4(unsafe { (*self.ctx).user_ip4 })
    }

    #[inline(always)]
    fn set_addr4(self, addr: Addr4) {
        // SAFETY: as in `set_port`.
        unsafe { (&raw mut (*self.ctx).user_ip4).write_volatile(addr.0) };
    }

    #[inline(always)]
    fn addr6(self) -> Addr6 {
        // SAFETY: as in `proto`; volatile, word by word, as the kernel wants this field read.
        let word =
            |i: usize| unsafe { (&raw const (*self.ctx).user_ip6[i]).read_volatile() } as u64;
        Addr6 {
            high: word(0) | word(1) << 32,
            low: word(2) | word(3) << 32,
        }
    }

    #[inline(always)]
    fn set_addr6(self, addr: Addr6) {
        let set = |i: usize, word: u32| {
            // SAFETY: as in `set_port`; word by word, as the kernel wants this field written.
            unsafe { (&raw mut (*self.ctx).user_ip6[i]).write_volatile(word) };
        };
        set(0, addr.high as u32);
        set(1, (addr.high >> 32) as u32);
        set(2, addr.low as u32);
        set(3, (addr.low >> 32) as u32);
    }

    #[inline(always)]
    fn refuse(self) -> i32 {
        // SAFETY: takes no pointers.
        unsafe { helper::bpf_set_retval(-ECONNREFUSED) };
        DENY
    }
}

/// What a dialled address becomes.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialled {
    /// Not a frontend.
    Direct,
    /// The chosen backend.
    Backend,
    /// No backend.
    Refused,
}

/// Chooses a backend for a dialled frontend and remembers the frontend for the socket.
#[inline(always)]
fn dial<F: Family>(
    socket: Socket,
    addr: F::Addr,
    scope: u8,
    choice: &mut Choice<F::Addr>,
) -> Dialled {
    let (port, protocol) = (socket.port(), socket.proto());
    if !matches!(protocol, proto::TCP | proto::UDP) {
        return Dialled::Direct;
    }
    let Some(found) = service::lookup::<F>(addr, port, protocol, scope) else {
        if !service::owns::<F>(addr, scope) {
            return Dialled::Direct;
        }
        observe::count_drop(DropReason::NoBackend);
        return Dialled::Refused;
    };
    // The client's address is not known yet: its packet is looked at where it leaves the node.
    if found.flags & service_flags::SOURCE_RANGES != 0 {
        return Dialled::Direct;
    }
    // All processes of the host are one client.
    match service::choose::<F>(found, F::host_client(), choice) {
        Ok(()) => {}
        // What is to be dropped, not refused, is dropped where it leaves the node.
        Err(DropReason::NoLocalBackend) => return Dialled::Direct,
        Err(reason) => {
            observe::count_drop(reason);
            return Dialled::Refused;
        }
    }
    let key = rev_key(socket, choice.addr, choice.port);
    let value = SockRevVal {
        addr,
        frontend: found.frontend,
        port,
        reserved: 0,
    };
    // Without room the peer is seen as the backend.
    let _ = F::sock_rev().put(&key, &value);
    Dialled::Backend
}

/// The scope that a socket dials an address in: only IPv4 has node ports at its loopback address.
#[inline(always)]
fn scope_of(addr: Addr4) -> u8 {
    if addr.is_loopback() {
        scope::LOOPBACK
    } else {
        scope::INTERNAL
    }
}

#[inline(always)]
fn rev_key<A: Address>(socket: Socket, addr: A, port: Port) -> SockRevKey<A> {
    let cookie = socket.cookie();
    SockRevKey {
        cookie: [cookie as u32, (cookie >> 32) as u32],
        addr,
        port,
        proto: socket.proto() as u16,
        reserved: 0,
    }
}

#[inline(always)]
fn dial4(socket: Socket) -> i32 {
    if !socket.is_ours() {
        return ALLOW;
    }
    let addr = socket.addr4();
    let mut choice = Choice::none(addr);
    match dial::<V4>(socket, addr, scope_of(addr), &mut choice) {
        Dialled::Direct => ALLOW,
        Dialled::Refused => socket.refuse(),
        Dialled::Backend => {
            socket.set_addr4(choice.addr);
            socket.set_port(choice.port);
            ALLOW
        }
    }
}

/// An IPv6 socket may dial an IPv4 address in its mapped form (RFC 3493 section 3.7).
#[inline(always)]
fn dial6(socket: Socket) -> i32 {
    if !socket.is_ours() {
        return ALLOW;
    }
    let addr = socket.addr6();
    if let Some(mapped) = addr.mapped4() {
        let mut choice = Choice::none(mapped);
        return match dial::<V4>(socket, mapped, scope_of(mapped), &mut choice) {
            Dialled::Direct => ALLOW,
            Dialled::Refused => socket.refuse(),
            Dialled::Backend => {
                socket.set_addr6(choice.addr.to_mapped());
                socket.set_port(choice.port);
                ALLOW
            }
        };
    }
    let mut choice = Choice::none(addr);
    match dial::<V6>(socket, addr, scope::INTERNAL, &mut choice) {
        Dialled::Direct => ALLOW,
        Dialled::Refused => socket.refuse(),
        Dialled::Backend => {
            socket.set_addr6(choice.addr);
            socket.set_port(choice.port);
            ALLOW
        }
    }
}

/// The frontend that a socket dialled to reach a backend.
#[inline(always)]
fn restore<F: Family>(socket: Socket, addr: F::Addr) -> Option<&'static SockRevVal<F::Addr>> {
    let key = rev_key(socket, addr, socket.port());
    F::sock_rev().find(&key).map(|value| &*value)
}

#[inline(always)]
fn restore4(socket: Socket) -> i32 {
    if socket.is_ours()
        && let Some(frontend) = restore::<V4>(socket, socket.addr4())
    {
        socket.set_addr4(frontend.addr);
        socket.set_port(frontend.port);
    }
    ALLOW
}

#[inline(always)]
fn restore6(socket: Socket) -> i32 {
    if !socket.is_ours() {
        return ALLOW;
    }
    let addr = socket.addr6();
    if let Some(mapped) = addr.mapped4() {
        if let Some(frontend) = restore::<V4>(socket, mapped) {
            socket.set_addr6(frontend.addr.to_mapped());
            socket.set_port(frontend.port);
        }
        return ALLOW;
    }
    if let Some(frontend) = restore::<V6>(socket, addr) {
        socket.set_addr6(frontend.addr);
        socket.set_port(frontend.port);
    }
    ALLOW
}
