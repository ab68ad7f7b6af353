//! Finds the selectors that choose a set of labels without trying all of them.

use std::collections::HashMap;

use crate::snapshot::{Labels, Operator, Selector, Text};

/// Things by selector.
pub(super) struct SelectorIndex<'a, T> {
    /// Selectors that ask for one of these values of a label, under one such label.
    by_pair: HashMap<(&'a Text, &'a Text), Vec<(&'a Selector, T)>>,
    /// All others.
    rest: Vec<(&'a Selector, T)>,
}

impl<T> Default for SelectorIndex<'_, T> {
    fn default() -> Self {
        Self {
            by_pair: HashMap::new(),
            rest: Vec::new(),
        }
    }
}

impl<'a, T: Copy> SelectorIndex<'a, T> {
    /// Adds a thing.
    pub(super) fn insert(&mut self, selector: &'a Selector, thing: T) {
        let exact =
            selector
                .requirements()
                .iter()
                .find_map(|requirement| match &requirement.operator {
                    Operator::In(values) => Some((&requirement.key, values)),
                    Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
                });
        let Some((key, values)) = exact else {
            self.rest.push((selector, thing));
            return;
        };
        for value in values {
            self.by_pair
                .entry((key, value))
                .or_default()
                .push((selector, thing));
        }
    }

    /// Things whose selector chooses these labels, in no particular order, each once.
    pub(super) fn matching(&self, labels: &Labels) -> Vec<T> {
        // A label has one value, so a selector is found under at most one pair.
        let paired = labels
            .iter()
            .filter_map(|pair| self.by_pair.get(&pair))
            .flatten();
        let matching = paired
            .chain(&self.rest)
            .filter(|(selector, _)| selector.matches(labels));
        matching.map(|&(_, thing)| thing).collect()
    }
}
