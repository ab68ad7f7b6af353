//! A map and its operations on bytes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{bpf, halves, name_bytes, name_text, number, object_info, present};

const LOOKUP: u32 = 1;
const UPDATE: u32 = 2;
const DELETE: u32 = 3;
const NEXT_KEY: u32 = 4;
const LOOKUP_BATCH: u32 = 24;
const UPDATE_BATCH: u32 = 26;
const DELETE_BATCH: u32 = 27;

/// The kernel's own "not supported", which leaks out of map operations.
const ENOTSUPP: i32 = 524;

/// Kinds of maps that programs here use (`enum bpf_map_type`).
pub mod kind {
    /// `BPF_MAP_TYPE_HASH`.
    pub const HASH: u32 = 1;
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    pub const PERCPU_ARRAY: u32 = 6;
    /// `BPF_MAP_TYPE_LRU_HASH`.
    #[cfg(test)]
    pub const LRU_HASH: u32 = 9;
}

/// What the kernel says of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MapInfo {
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// Id, unique while the map lives.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Capacity.
    pub max_entries: u32,
    /// Flags it was created with.
    pub flags: u32,
    /// Name, cut to 15 bytes and filled with zeros.
    pub name: [u8; 16],
}

impl MapInfo {
    /// The name as text, as far as the kernel keeps it (15 bytes).
    pub fn name(&self) -> String {
        name_text(&self.name)
    }
}

/// An open map. Buffers are checked against its layout, so no operation lets the kernel reach past
/// them.
#[derive(Debug)]
pub struct RawMap {
    fd: OwnedFd,
    info: MapInfo,
    /// Bytes of a value as userspace sees it.
    value_size: usize,
}

impl RawMap {
    /// Takes a map's descriptor. `cpus` is how many CPUs are possible: a per-CPU map's value is
    /// all of theirs, each filled up to 8 bytes.
    pub fn new(fd: OwnedFd, cpus: usize) -> io::Result<Self> {
        let info = map_info(fd.as_fd())?;
        let value_size = match info.kind {
            kind::PERCPU_ARRAY => (info.value_size as usize).next_multiple_of(8) * cpus,
            _ => info.value_size as usize,
        };
        Ok(Self {
            fd,
            info,
            value_size,
        })
    }

    /// The layout.
    pub fn info(&self) -> &MapInfo {
        &self.info
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes of a key.
    pub fn key_size(&self) -> usize {
        self.info.key_size as usize
    }

    /// Bytes of a value, all CPUs' of a per-CPU map.
    pub fn value_size(&self) -> usize {
        self.value_size
    }

    /// Reads a value; false if there is no such key.
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key.len(), value.len(), 1);
        let mut attr = self.element(key.as_ptr() as u64, value.as_mut_ptr() as u64);
        Ok(present(bpf(LOOKUP, &mut attr))?.is_some())
    }

    /// Writes a value, over one that is there.
    pub fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key.len(), value.len(), 1);
        let mut attr = self.element(key.as_ptr() as u64, value.as_ptr() as u64);
        bpf(UPDATE, &mut attr).map(drop)
    }

    /// Deletes a key; false if there is none.
    pub fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key.len(), self.value_size, 1);
        let mut attr = self.element(key.as_ptr() as u64, 0);
        Ok(present(bpf(DELETE, &mut attr))?.is_some())
    }

    /// The key after `key`, or the first; false at the end.
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        let from = key.map_or(next.len(), <[u8]>::len);
        self.check(from, self.value_size, 1);
        self.check(next.len(), self.value_size, 1);
        let key = key.map_or(0, |key| key.as_ptr() as u64);
        let mut attr = self.element(key, next.as_mut_ptr() as u64);
        Ok(present(bpf(NEXT_KEY, &mut attr))?.is_some())
    }

    /// Writes entries that lie end to end.
    ///
    /// The number is how many were written before an error, if any.
    pub fn update_batch(&self, keys: &[u8], values: &[u8]) -> (usize, io::Result<()>) {
        let count = keys.len() / self.key_size();
        self.check(keys.len(), values.len(), count);
        self.batch(UPDATE_BATCH, keys, values.as_ptr() as u64, count)
    }

    /// Deletes keys that lie end to end. It stops at the first one that is not there, with
    /// `ENOENT`; the number is how many were deleted before.
    pub fn delete_batch(&self, keys: &[u8]) -> (usize, io::Result<()>) {
        let count = keys.len() / self.key_size();
        self.check(keys.len(), count * self.value_size, count);
        self.batch(DELETE_BATCH, keys, 0, count)
    }

    /// Reads as many entries as the buffers hold, from `cursor` on.
    ///
    /// Answers how many were read, and whether there may be more. `ENOSPC` asks for larger
    /// buffers: some maps give whole buckets only.
    pub fn lookup_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> io::Result<(usize, bool)> {
        let count = keys.len() / self.key_size();
        self.check(keys.len(), values.len(), count);
        cursor.place.resize(self.key_size().max(8), 0);
        let place = cursor.place.as_mut_ptr() as u64;
        let mut attr = BatchAttr {
            in_batch: if cursor.started { place } else { 0 },
            out_batch: place,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: count as u32,
            fd: number(self.fd()),
            elem_flags: 0,
            flags: 0,
        };
        let more = present(bpf(LOOKUP_BATCH, &mut attr))?.is_some();
        cursor.started = true;
        Ok(((attr.count as usize).min(count), more))
    }

    fn batch(
        &self,
        command: u32,
        keys: &[u8],
        values: u64,
        count: usize,
    ) -> (usize, io::Result<()>) {
        let mut attr = BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values,
            count: count as u32,
            fd: number(self.fd()),
            elem_flags: 0,
            flags: 0,
        };
        match bpf(command, &mut attr) {
            Ok(_) => (count, Ok(())),
            // Refused before the kernel writes the count.
            Err(error) if is_refusal(&error) || error.raw_os_error() == Some(libc::EFAULT) => {
                (0, Err(error))
            }
            Err(error) => ((attr.count as usize).min(count), Err(error)),
        }
    }

    fn element(&self, key: u64, value: u64) -> Element {
        Element {
            fd: number(self.fd()),
            pad: 0,
            key,
            value,
            flags: 0,
        }
    }

    fn check(&self, keys: usize, values: usize, count: usize) {
        assert!(
            keys == count * self.key_size() && values == count * self.value_size,
            "map {}: buffers of {keys} and {values} bytes for {count} entries",
            self.info.name(),
        );
    }
}

/// A place in a map, between two reads of a batch.
#[derive(Debug, Default)]
pub struct Cursor {
    place: Vec<u8>,
    started: bool,
}

/// True if this kernel has no such operation on this kind of map.
pub fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::ENOTSUP | libc::EPERM | ENOTSUPP)
    )
}

#[repr(C)]
struct Element {
    fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A map's layout.
fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    // struct bpf_map_info: type, id | key_size, value_size | max_entries, map_flags | name.
    let mut words = [0u64; 5];
    object_info(fd, &mut words)?;
    let (kind, id) = halves(words[0]);
    let (key_size, value_size) = halves(words[1]);
    let (max_entries, flags) = halves(words[2]);
    Ok(MapInfo {
        kind,
        id,
        key_size,
        value_size,
        max_entries,
        flags,
        name: name_bytes(&words[3..5]),
    })
}
