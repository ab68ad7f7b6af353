//! Links and the programs at a hook.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use super::{ById, LINK_FD_BY_ID, bpf, bpf_fd, by_id, halves, number, object_info, present};

/// `BPF_TCX_INGRESS`: packets that come in by a device.
pub const TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS`: packets that go out by a device.
pub const TCX_EGRESS: u32 = 47;

const PROG_QUERY: u32 = 16;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const LINK_NEXT_ID: u32 = 31;
const LINK_DETACH: u32 = 34;

/// `BPF_F_BEFORE` without a relative: before all others.
const F_BEFORE: u32 = 1 << 3;

/// What the kernel says of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkInfo {
    /// Id, unique while the link lives.
    pub id: u32,
    /// The program it runs.
    pub program: u32,
    /// Where it is attached.
    pub target: Target,
}

/// What a link attaches its program to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Target {
    /// A device's hook.
    Tcx {
        /// The device; 0 once it is gone.
        ifindex: u32,
        /// [`TCX_INGRESS`] or [`TCX_EGRESS`].
        attach_type: u32,
    },
    /// A cgroup's hook.
    Cgroup {
        /// The cgroup's id, which is its inode; 0 once it is gone.
        id: u64,
        /// `enum bpf_attach_type`.
        attach_type: u32,
    },
    /// A device's driver, or the kernel in its place.
    Xdp {
        /// The device; 0 once it is gone.
        ifindex: u32,
    },
    /// Something else.
    #[default]
    Other,
}

/// `BPF_LINK_TYPE_TCX`.
const LINK_TCX: u32 = 11;
/// `BPF_LINK_TYPE_XDP`.
const LINK_XDP: u32 = 6;
/// `BPF_LINK_TYPE_CGROUP`.
const LINK_CGROUP: u32 = 3;

/// A program at a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Program id.
    pub program: u32,
    /// Link id; 0 if it is attached without a link.
    pub link: u32,
}

/// A link's program and target.
pub fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // struct bpf_link_info: type, id | prog_id, (padding) | tcx: ifindex, attach_type;
    // xdp: ifindex; cgroup: cgroup_id | attach_type.
    let mut words = [0u64; 8];
    object_info(fd, &mut words)?;
    let (kind, id) = halves(words[0]);
    let (ifindex, tcx_type) = halves(words[2]);
    let target = match kind {
        LINK_TCX => Target::Tcx {
            ifindex,
            attach_type: tcx_type,
        },
        LINK_CGROUP => Target::Cgroup {
            id: words[2],
            attach_type: halves(words[3]).0,
        },
        LINK_XDP => Target::Xdp { ifindex },
        _ => Target::Other,
    };
    Ok(LinkInfo {
        id,
        program: halves(words[1]).0,
        target,
    })
}

/// The id of the link after this one (0: the first); `None` at the end.
pub fn next_link(id: u32) -> io::Result<Option<u32>> {
    let mut attr = ById {
        id,
        next: 0,
        flags: 0,
    };
    Ok(present(bpf(LINK_NEXT_ID, &mut attr))?.map(|_| attr.next))
}

/// Opens a link; `None` once it is gone.
pub fn link_by_id(id: u32) -> io::Result<Option<OwnedFd>> {
    by_id(LINK_FD_BY_ID, id)
}

#[repr(C)]
struct LinkAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    revision: u64,
}

/// Attaches a program to a device before all others of its hook ([`TCX_INGRESS`],
/// [`TCX_EGRESS`]).
pub fn link_tcx(program: BorrowedFd<'_>, ifindex: u32, attach_type: u32) -> io::Result<OwnedFd> {
    link_create(number(program), ifindex, attach_type, F_BEFORE)
}

/// Who runs an XDP program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// The device's driver.
    Native,
    /// The kernel, for any driver.
    Generic,
}

/// Attaches an XDP program to a device that has none.
pub fn link_xdp(program: BorrowedFd<'_>, ifindex: u32, mode: XdpMode) -> io::Result<OwnedFd> {
    /// `BPF_XDP`.
    const XDP: u32 = 37;
    // `XDP_FLAGS_DRV_MODE`, `XDP_FLAGS_SKB_MODE`.
    let flags = match mode {
        XdpMode::Native => 1 << 2,
        XdpMode::Generic => 1 << 1,
    };
    link_create(number(program), ifindex, XDP, flags)
}

/// Attaches a program to a cgroup, after those that are there.
pub fn link_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    link_create(number(program), number(cgroup), attach_type, 0)
}

fn link_create(program: u32, target: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkAttr {
        program,
        target,
        attach_type,
        flags,
        relative: 0,
        pad: 0,
        revision: 0,
    };
    bpf_fd(LINK_CREATE, &mut attr)
}

/// Replaces a link's program: every packet meets the old one or the new one.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [number(link), number(program), 0, 0];
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

/// Detaches a link, whoever else holds it.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [number(link)];
    bpf(LINK_DETACH, &mut attr).map(drop)
}

#[repr(C)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// The programs at a device's hook ([`TCX_INGRESS`], [`TCX_EGRESS`]), in the order they run.
pub fn query_tcx(ifindex: u32, attach_type: u32) -> io::Result<Vec<Attached>> {
    let mut programs = [0u32; 64];
    let mut links = [0u32; 64];
    let mut attr = QueryAttr {
        target: ifindex,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: programs.len() as u32,
        pad: 0,
        program_flags: 0,
        links: links.as_mut_ptr() as u64,
        link_flags: 0,
        revision: 0,
    };
    if present(bpf(PROG_QUERY, &mut attr))?.is_none() {
        return Ok(Vec::new());
    }
    let count = (attr.count as usize).min(programs.len());
    let pairs = programs.iter().zip(&links).take(count);
    Ok(pairs
        .map(|(&program, &link)| Attached { program, link })
        .collect())
}

/// Ids of the programs at a cgroup's hook. Kernels before 6.6 tell no link ids there, so none are
/// given.
pub fn query_cgroup(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut programs = [0u32; 64];
    let mut attr = QueryAttr {
        target: number(cgroup),
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: programs.len() as u32,
        pad: 0,
        program_flags: 0,
        links: 0,
        link_flags: 0,
        revision: 0,
    };
    bpf(PROG_QUERY, &mut attr)?;
    Ok(programs[..(attr.count as usize).min(programs.len())].to_vec())
}
