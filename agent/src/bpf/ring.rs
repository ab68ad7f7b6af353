//! Reading a ring buffer as it fills.

use std::{io, os::fd::OwnedFd};

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Error, Maps};

/// The reading end of a ring buffer. A ring has one reader.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Ring {
    /// Opens a ring for reading on the current runtime.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it cannot be mapped.
    pub fn open(maps: &Maps, name: &str) -> Result<Self, Error> {
        let failed = |what, error: io::Error| Error::map(name, what, error);
        let fd: OwnedFd = maps
            .raw(name)?
            .fd()
            .try_clone_to_owned()
            .map_err(|error| failed("opening", error))?;
        let map =
            MapData::from_fd(fd).map_err(|error| failed("opening", io::Error::other(error)))?;
        let ring = RingBuf::try_from(Map::RingBuf(map))
            .map_err(|error| failed("mapping", io::Error::other(error)))?;
        // SAFETY: the ring owns its descriptor, answers the same one each time, and closes it
        // only when it is dropped, with the registration.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| failed("waiting for", io::Error::other(error.to_string())))?;
        Ok(Self { ring })
    }

    /// Forgets the records that it has.
    pub fn skip(&mut self) {
        while self.ring.get_mut().next().is_some() {}
    }

    /// Waits until the ring has records, and hands over each that there is.
    ///
    /// # Errors
    ///
    /// The runtime is shutting down.
    pub async fn read(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut ready = self.ring.readable_mut().await?;
        while let Some(record) = ready.get_inner_mut().next() {
            each(&record);
        }
        ready.clear_ready();
        Ok(())
    }
}
