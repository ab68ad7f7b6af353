//! A space of numbers from 1 on, given out in runs.

use std::collections::BTreeMap;

/// Free runs of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    /// Free runs: first number -> how many. Adjacent runs are merged.
    free: BTreeMap<u32, u32>,
    /// Where the search for the next run starts: behind the last one that was given out.
    cursor: u32,
    used: u32,
}

impl Space {
    /// Numbers from 1 up to, not including, `limit`.
    pub(crate) fn new(limit: u32) -> Self {
        let free = if limit > 1 {
            BTreeMap::from([(1, limit - 1)])
        } else {
            BTreeMap::new()
        };
        Self {
            free,
            cursor: 1,
            used: 0,
        }
    }

    /// How many numbers are given out.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Gives out `count` successive numbers: the first that fit at or behind the last ones, else the
    /// first of all.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        let first = self
            .find(self.cursor, count)
            .or_else(|| self.find(1, count))?;
        self.reserve(first, count);
        Some(first)
    }

    /// Gives out the lowest `count` successive numbers that are free.
    pub(crate) fn take_lowest(&mut self, count: u32) -> Option<u32> {
        let first = self.find(1, count)?;
        self.reserve(first, count);
        Some(first)
    }

    /// Takes these numbers, if all of them are free. The next search starts behind them.
    pub(crate) fn reserve(&mut self, first: u32, count: u32) -> bool {
        let Some((&start, &length)) = self.free.range(..=first).next_back() else {
            return false;
        };
        let (end, run_end) = (
            u64::from(first) + u64::from(count),
            u64::from(start) + u64::from(length),
        );
        if count == 0 || end > run_end {
            return false;
        }
        self.free.remove(&start);
        if first > start {
            self.free.insert(start, first - start);
        }
        if run_end > end {
            self.free.insert(first + count, (run_end - end) as u32);
        }
        self.cursor = self.cursor.max(first + count);
        if self.find(self.cursor, 1).is_none() {
            self.cursor = 1;
        }
        self.used += count;
        true
    }

    /// Takes numbers back that were given out.
    pub(crate) fn give_back(&mut self, first: u32, count: u32) {
        let (mut start, mut length) = (first, count);
        if let Some((&before, &run)) = self.free.range(..first).next_back()
            && before + run == first
        {
            self.free.remove(&before);
            (start, length) = (before, run + length);
        }
        if let Some(run) = self.free.remove(&(first + count)) {
            length += run;
        }
        self.free.insert(start, length);
        self.used -= count;
    }

    fn find(&self, from: u32, count: u32) -> Option<u32> {
        // The run that holds `from` has its part behind it.
        if let Some((&start, &length)) = self.free.range(..=from).next_back()
            && u64::from(from) + u64::from(count) <= u64::from(start) + u64::from(length)
        {
            return Some(from);
        }
        self.free
            .range(from..)
            .find(|&(_, &length)| length >= count)
            .map(|(&start, _)| start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_grow_before_they_are_used_again() {
        let mut space = Space::new(6);
        assert_eq!(space.take(1), Some(1));
        assert_eq!(space.take(2), Some(2));
        space.give_back(1, 1);
        assert_eq!(
            space.take(1),
            Some(4),
            "1 is free, but 4 has never been used"
        );
        assert_eq!(space.take(1), Some(5));
        assert_eq!(space.take(1), Some(1));
        assert_eq!(space.take(1), None);
        assert_eq!(space.used(), 5);
    }

    #[test]
    fn a_wrapped_space_moves_on_from_the_last_number() {
        let mut space = Space::new(5);
        (1..5).for_each(|number| assert_eq!(space.take(1), Some(number)));
        space.give_back(2, 1);
        space.give_back(3, 1);
        assert_eq!(space.take(1), Some(2));
        space.give_back(2, 1);
        assert_eq!(space.take(1), Some(3));
    }

    #[test]
    fn runs_are_contiguous_and_merge_when_given_back() {
        let mut space = Space::new(11);
        let runs: Vec<_> = (0..5).filter_map(|_| space.take(2)).collect();
        assert_eq!(runs, [1, 3, 5, 7, 9]);
        space.give_back(3, 2);
        space.give_back(7, 2);
        assert_eq!(space.take(4), None, "4 are free, but not in a row");
        space.give_back(5, 2);
        assert_eq!(space.take(6), Some(3));
    }

    #[test]
    fn a_reserved_number_is_not_given_out() {
        let mut space = Space::new(10);
        assert!(space.reserve(4, 2));
        assert!(!space.reserve(5, 1), "it is taken");
        assert!(!space.reserve(9, 2), "it is outside");
        assert!(!space.reserve(0, 1), "0 stands for none");
        assert_eq!(space.take(1), Some(6), "behind the highest");
    }

    proptest! {
        #[test]
        fn no_number_is_given_out_twice(sizes in prop::collection::vec((1u32..5, any::<bool>()), 1..60)) {
            let mut space = Space::new(40);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (count, give_back) in sizes {
                if give_back && let Some((first, count)) = held.pop() {
                    space.give_back(first, count);
                }
                let Some(first) = space.take(count) else { continue };
                prop_assert!(first >= 1 && first + count <= 40);
                prop_assert!(held.iter().all(|&(other, length)| first + count <= other || other + length <= first));
                held.push((first, count));
                prop_assert_eq!(space.used(), held.iter().map(|&(_, count)| count).sum::<u32>());
            }
        }
    }
}
