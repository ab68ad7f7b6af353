//! How many may be served at a time, and how many of those one client may be.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// Places for clients, by their addresses.
#[derive(Debug)]
pub(super) struct Places {
    all: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Ipv6Addr, usize>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    client: Ipv6Addr,
}

impl Places {
    /// So many, and so many for each client.
    pub(super) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            all,
            each,
            taken: Mutex::default(),
        })
    }

    /// A place for a client, if there is one for it.
    pub(super) fn take(self: &Arc<Self>, client: Ipv6Addr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by.get(&client).copied().unwrap_or(0);
        if taken.all >= self.all || own >= self.each {
            return None;
        }
        taken.all += 1;
        taken.by.insert(client, own + 1);
        let places = Arc::clone(self);
        Some(Place { places, client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = self.places.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_all_places() {
        let places = Places::new(3, 2);
        let client = |number| Ipv6Addr::from(u128::from(number));
        let held: Vec<_> = [1u8, 1, 2]
            .map(|number| places.take(client(number)).unwrap())
            .into();
        assert!(places.take(client(3)).is_none(), "there are three");
        drop(held.into_iter().nth(2));
        assert_eq!(places.taken.lock().unwrap().by.len(), 0);
        let _both = [places.take(client(1)), places.take(client(1))].map(Option::unwrap);
        assert!(places.take(client(1)).is_none(), "of which it has two");
        assert!(places.take(client(2)).is_some());
    }
}
