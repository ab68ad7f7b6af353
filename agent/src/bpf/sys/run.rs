//! Programs of a few instructions that ask the kernel something, and the namespace's cookie.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::{bpf, bpf_fd, number};

const PROG_LOAD: u32 = 5;
const PROG_TEST_RUN: u32 = 10;

#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    flags: u32,
}

/// `BPF_PROG_TYPE_SCHED_CLS`.
const PROG_SCHED_CLS: u32 = 3;

/// Loads a classifier from its instructions, each as the word the kernel reads.
pub fn load_classifier(insns: &[u64]) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        kind: PROG_SCHED_CLS,
        count: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        flags: 0,
    };
    bpf_fd(PROG_LOAD, &mut attr)
}

#[repr(C)]
struct TestAttr {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Runs a program once on a frame and answers what it returned.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    let mut attr = TestAttr {
        program: number(program),
        result: 0,
        data_size_in: frame.len() as u32,
        data_size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    bpf(PROG_TEST_RUN, &mut attr)?;
    Ok(attr.result)
}

/// The cookie of this thread's network namespace (`SO_NETNS_COOKIE`, kernel 5.14).
pub fn netns_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))
        .or_else(|_| std::net::UdpSocket::bind(("0.0.0.0", 0)))?;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the socket is open; `cookie` and `len` are live and `len` is the cookie's size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}
