//! The `bpf(2)` commands that aya does not offer, on file descriptors and bytes.
//!
//! Layouts follow `union bpf_attr` and the info structures of `linux/bpf.h`. Buffers whose size
//! depends on a map are checked against the map's own layout in [`RawMap`].

mod device;
mod link;
mod map;
mod memory;
mod run;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

pub use device::has_hardware;
pub use link::{
    LinkInfo, TCX_EGRESS, TCX_INGRESS, Target, XdpMode, link_by_id, link_cgroup, link_detach,
    link_info, link_tcx, link_update, link_xdp, next_link, query_cgroup, query_tcx,
};
pub use map::{Cursor, MapInfo, RawMap, is_refusal, kind};
pub use memory::give_back_memory;
pub use run::{load_classifier, netns_cookie, test_run};

const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const PROG_FD_BY_ID: u32 = 13;
const MAP_FD_BY_ID: u32 = 14;
const OBJ_INFO: u32 = 15;
const LINK_FD_BY_ID: u32 = 30;

/// What the kernel says of a program.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProgramInfo {
    /// Id, unique while the program lives.
    pub id: u32,
    /// Name, cut to 15 bytes.
    pub name: String,
    /// Ids of the maps it uses.
    pub maps: Vec<u32>,
}

/// Runs one command. The kernel reads `size_of::<T>()` bytes of `attr` and may write into them.
fn bpf<T>(command: u32, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live, exclusively borrowed `repr(C)` value of the stated size; callers
    // keep the buffers its pointer fields name alive and of the sizes the kernel will use.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            (attr as *mut T).cast::<libc::c_void>(),
            size_of::<T>() as libc::c_long,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Runs a command that answers with a file descriptor.
fn bpf_fd<T>(command: u32, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// `None` for an answer of `ENOENT`.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[repr(C)]
struct ObjAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens a pinned object.
pub fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjAttr {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    bpf_fd(OBJ_GET, &mut attr)
}

/// Pins an object.
pub fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjAttr {
        path: path.as_ptr() as u64,
        fd: number(fd),
        flags: 0,
    };
    bpf(OBJ_PIN, &mut attr).map(drop)
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// Fills as many words of `words` as the kernel has; the others stay.
fn object_info(fd: BorrowedFd<'_>, words: &mut [u64]) -> io::Result<()> {
    let mut attr = InfoAttr {
        fd: number(fd),
        len: size_of_val(words) as u32,
        info: words.as_mut_ptr() as u64,
    };
    bpf(OBJ_INFO, &mut attr).map(drop)
}

/// The two halves of a word in memory order.
fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    )
}

fn name_bytes(words: &[u64]) -> [u8; 16] {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&words[0].to_ne_bytes());
    name[8..].copy_from_slice(&words[1].to_ne_bytes());
    name
}

/// A kernel object's name as text.
pub fn name_text(name: &[u8; 16]) -> String {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(16);
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// A program's name and maps.
pub fn program_info(fd: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    // struct bpf_prog_info: type, id | tag | jited_len, xlated_len | jited | xlated | load_time |
    // created_by_uid, nr_map_ids | map_ids | name.
    let mut maps = [0u32; 64];
    let mut words = [0u64; 10];
    words[6] = u64::from_ne_bytes(pair(0, maps.len() as u32));
    words[7] = maps.as_mut_ptr() as u64;
    object_info(fd, &mut words)?;
    let count = (halves(words[6]).1 as usize).min(maps.len());
    Ok(ProgramInfo {
        id: halves(words[0]).1,
        name: name_text(&name_bytes(&words[8..10])),
        maps: maps[..count].to_vec(),
    })
}

fn pair(first: u32, second: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    bytes
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

fn by_id(command: u32, id: u32) -> io::Result<Option<OwnedFd>> {
    let mut attr = ById {
        id,
        next: 0,
        flags: 0,
    };
    present(bpf_fd(command, &mut attr))
}

/// Opens a program; `None` once it is gone.
pub fn program_by_id(id: u32) -> io::Result<Option<OwnedFd>> {
    by_id(PROG_FD_BY_ID, id)
}

/// Opens a map; `None` once it is gone.
pub fn map_by_id(id: u32) -> io::Result<Option<OwnedFd>> {
    by_id(MAP_FD_BY_ID, id)
}
