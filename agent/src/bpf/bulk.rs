//! Reading and writing many entries, as bytes that lie end to end.

use std::io;

use super::sys::{Cursor, RawMap, is_refusal};

/// Entries that one call reads or writes.
pub(super) const CHUNK: usize = 4_096;
/// From this many entries on, a batch is cheaper than single calls.
const BATCH_FROM: usize = 16;

/// Writes entries in order. Those before a failing one are written: their number comes with the
/// error.
pub(super) fn put(map: &RawMap, keys: &[u8], values: &[u8]) -> Result<(), (usize, io::Error)> {
    let (key_size, value_size) = (map.key_size(), map.value_size());
    let total = keys.len() / key_size;
    let mut done = 0;
    let part = |from: usize, to: usize| {
        (
            &keys[from * key_size..to * key_size],
            &values[from * value_size..to * value_size],
        )
    };
    while total - done >= BATCH_FROM {
        let (keys, values) = part(done, total.min(done + CHUNK));
        let (count, result) = map.update_batch(keys, values);
        done += count;
        match result {
            Ok(()) => {}
            Err(error) if is_refusal(&error) => break,
            Err(error) => return Err((done, error)),
        }
    }
    while done < total {
        let (key, value) = part(done, done + 1);
        map.update(key, value).map_err(|error| (done, error))?;
        done += 1;
    }
    Ok(())
}

/// Deletes keys in order; one that is not there counts as deleted.
pub(super) fn delete(map: &RawMap, keys: &[u8]) -> Result<(), (usize, io::Error)> {
    let size = map.key_size();
    let total = keys.len() / size;
    let mut done = 0;
    while total - done >= BATCH_FROM {
        let (count, result) = map.delete_batch(&keys[done * size..total.min(done + CHUNK) * size]);
        done += count;
        match result {
            Ok(()) => {}
            // It stopped at a key that is not there.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => done += 1,
            Err(error) if is_refusal(&error) => break,
            Err(error) => return Err((done, error)),
        }
    }
    while done < total {
        map.delete(&keys[done * size..(done + 1) * size])
            .map_err(|error| (done, error))?;
        done += 1;
    }
    Ok(())
}

/// Entries as bytes: all keys, and all values.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) keys: Vec<u8>,
    pub(super) values: Vec<u8>,
}

/// How far a pass over a map has come.
#[derive(Debug, Default)]
pub struct Pass {
    cursor: Cursor,
    key: Vec<u8>,
    single: bool,
    begun: bool,
    ended: bool,
    least: usize,
}

/// The next entries of a pass, about `size` of them; `None` at the end.
pub(super) fn next(map: &RawMap, pass: &mut Pass, size: usize) -> io::Result<Option<Entries>> {
    if pass.ended {
        return Ok(None);
    }
    let answer = if pass.single {
        walk(map, pass, size)
    } else {
        match batch(map, pass, size) {
            Err(error) if is_refusal(&error) && !pass.begun => {
                pass.single = true;
                walk(map, pass, size)
            }
            answer => answer,
        }
    };
    let entries = answer?;
    pass.begun = true;
    Ok((!entries.keys.is_empty() || !pass.ended).then_some(entries))
}

fn batch(map: &RawMap, pass: &mut Pass, size: usize) -> io::Result<Entries> {
    let most = (map.info().max_entries as usize).max(BATCH_FROM);
    let mut size = size.max(BATCH_FROM).max(pass.least).min(most);
    loop {
        let mut keys = vec![0; size * map.key_size()];
        let mut values = vec![0; size * map.value_size()];
        match map.lookup_batch(&mut pass.cursor, &mut keys, &mut values) {
            Ok((count, more)) => {
                pass.ended = !more;
                keys.truncate(count * map.key_size());
                values.truncate(count * map.value_size());
                return Ok(Entries { keys, values });
            }
            // A hash bucket that does not fit.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && size < most => {
                size = (size * 4).min(most);
                pass.least = size;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Key by key, for kernels without batches on this kind of map.
fn walk(map: &RawMap, pass: &mut Pass, size: usize) -> io::Result<Entries> {
    let mut entries = Entries::default();
    let mut key = vec![0; map.key_size()];
    let mut value = vec![0; map.value_size()];
    for _ in 0..size {
        let from = (!pass.key.is_empty()).then_some(pass.key.as_slice());
        if !map.next_key(from, &mut key)? {
            pass.ended = true;
            break;
        }
        pass.key.clone_from(&key);
        if map.lookup(&key, &mut value)? {
            entries.keys.extend_from_slice(&key);
            entries.values.extend_from_slice(&value);
        }
    }
    Ok(entries)
}
