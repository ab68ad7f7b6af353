//! The `bpf` system call, as far as the tests need it: running a program on a frame, and map
//! elements as bytes.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

const MAP_LOOKUP_ELEM: i64 = 1;
const MAP_UPDATE_ELEM: i64 = 2;
const MAP_DELETE_ELEM: i64 = 3;
const MAP_GET_NEXT_KEY: i64 = 4;
const PROG_TEST_RUN: i64 = 10;

/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE`: the frame comes as from a device that has summed it all, and
/// the sum must still be right afterwards.
const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// Bytes of `struct __sk_buff`.
const CONTEXT: usize = 192;
const CONTEXT_INGRESS_IFINDEX: usize = 36;
const CONTEXT_IFINDEX: usize = 40;
const CONTEXT_DATA_END: usize = 80;
const CONTEXT_GSO_SIZE: usize = 176;

/// Room for the frame that comes out.
const ROOM: usize = 4096;

/// How a frame is given to a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input {
    /// The device of the hook.
    pub ifindex: u32,
    /// The device the frame came in by; 0: this host made it.
    pub ingress_ifindex: u32,
    /// The device has summed the frame.
    pub summed: bool,
    /// So many octets of payload are to be in each packet that a device makes of it; 0: it is one.
    pub segment: u32,
    /// Only so many of its bytes stand in linear memory; 0: all.
    pub linear: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    reserved: u32,
}

#[repr(C)]
struct Element {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Runs a program on a frame: its return code, and the frame as it left it.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8], input: Input) -> io::Result<(i32, Vec<u8>)> {
    let mut context = [0u8; CONTEXT];
    let mut put = |at: usize, word: u32| context[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    put(CONTEXT_INGRESS_IFINDEX, input.ingress_ifindex);
    put(CONTEXT_IFINDEX, input.ifindex);
    put(CONTEXT_DATA_END, input.linear);
    put(CONTEXT_GSO_SIZE, input.segment);
    let flags = if input.summed { CHECKSUM_COMPLETE } else { 0 };
    let (returned, out) = run(program, frame, &context, flags)?;
    Ok((returned as i32, out))
}

/// Runs an XDP program on a frame that came by a device: its action, and the frame as it left it.
pub fn test_run_early(
    program: BorrowedFd<'_>,
    frame: &[u8],
    ifindex: u32,
) -> io::Result<(u32, Vec<u8>)> {
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, frame.len() as u32, 0, ifindex, 0, 0].map(u32::to_ne_bytes);
    run(program, frame, context.as_flattened(), 0)
}

/// Runs a program once on a frame: what it returns, and the frame as it left it.
fn run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    context: &[u8],
    flags: u32,
) -> io::Result<(u32, Vec<u8>)> {
    let mut out = vec![0u8; ROOM];
    let mut run = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_size_out: ROOM as u32,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        ctx_size_in: context.len() as u32,
        ctx_in: context.as_ptr() as u64,
        flags,
        ..TestRun::default()
    };
    call(PROG_TEST_RUN, &mut run)?;
    out.truncate(run.data_size_out as usize);
    Ok((run.retval, out))
}

/// Reads an element into `value`; false if it is not there.
pub fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    found(element(
        map,
        MAP_LOOKUP_ELEM,
        key.as_ptr() as u64,
        value.as_mut_ptr() as u64,
    ))
}

/// Writes an element.
pub fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    element(
        map,
        MAP_UPDATE_ELEM,
        key.as_ptr() as u64,
        value.as_ptr() as u64,
    )
}

/// Removes an element; false if it was not there.
pub fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    found(element(map, MAP_DELETE_ELEM, key.as_ptr() as u64, 0))
}

/// The first key of a map, if it has any; `key` gives its size.
pub fn first_key(map: BorrowedFd<'_>, key: &mut [u8]) -> io::Result<bool> {
    found(element(map, MAP_GET_NEXT_KEY, 0, key.as_mut_ptr() as u64))
}

/// The key after this one, if there is one.
pub fn next_key(map: BorrowedFd<'_>, after: &[u8], key: &mut [u8]) -> io::Result<bool> {
    found(element(
        map,
        MAP_GET_NEXT_KEY,
        after.as_ptr() as u64,
        key.as_mut_ptr() as u64,
    ))
}

fn element(map: BorrowedFd<'_>, command: i64, key: u64, value: u64) -> io::Result<()> {
    let mut attributes = Element {
        map_fd: map.as_raw_fd() as u32,
        reserved: 0,
        key,
        value,
        flags: 0,
    };
    call(command, &mut attributes)
}

fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn call<T>(command: i64, attributes: &mut T) -> io::Result<()> {
    // SAFETY: `attributes` is the command's part of `union bpf_attr`; the buffers that it points to
    // outlive the call and have the sizes that it or the map's layout states.
    let status =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
