//! What many objects say alike, kept once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use dataplane_model::snapshot::Place;

/// What Services and slices say alike.
#[derive(Debug, Default)]
pub struct Common {
    /// Places of endpoints.
    pub places: Shared<Place>,
    /// Names of ports, and keys of labels.
    pub names: Shared<str>,
}

/// Values, each kept once for as long as somebody has it.
#[derive(Debug)]
pub struct Shared<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// Look for values that nobody uses when there are this many.
    tidy_at: usize,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            tidy_at: 0,
        }
    }
}

impl<T: Eq + Hash + ?Sized> Shared<T> {
    /// The one that equals a value.
    pub fn of(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.known.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.tidy_at {
            self.known.retain(|value| Arc::strong_count(value) > 1);
            self.tidy_at = (self.known.len() * 2).max(64);
        }
        let value = value.into();
        self.known.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let mut names = Shared::<str>::default();
        let http = names.of("http");
        assert!(Arc::ptr_eq(&http, &names.of("http")));
        for number in 0..1_000 {
            names.of(&*format!("port-{number}"));
        }
        assert!(names.known.len() <= 65, "{}", names.known.len());
        assert!(Arc::ptr_eq(&http, &names.of("http")));
    }
}
