//! Labels and label selectors (metav1.LabelSelector).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Text;

/// Labels of an object, by key. Most objects have one or two, so that a tree would be mostly air.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Labels(Box<[(Text, Text)]>);

impl Labels {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&Text> {
        let place = self.place(key).ok()?;
        Some(&self.0[place].1)
    }

    /// Sets a label.
    pub fn insert(&mut self, key: Text, value: Text) {
        match self.place(&key) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => {
                let mut all = std::mem::take(&mut self.0).into_vec();
                all.insert(place, (key, value));
                self.0 = all.into();
            }
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Text, &Text)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    fn place(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(key))
    }
}

impl FromIterator<(Text, Text)> for Labels {
    /// Of a key that comes twice, the last value.
    fn from_iter<I: IntoIterator<Item = (Text, Text)>>(labels: I) -> Self {
        let sorted: BTreeMap<Text, Text> = labels.into_iter().collect();
        Self(sorted.into_iter().collect())
    }
}

impl<const N: usize> From<[(Text, Text); N]> for Labels {
    fn from(labels: [(Text, Text); N]) -> Self {
        labels.into_iter().collect()
    }
}

/// A label selector: all requirements must hold. Without any it selects everything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Requirement {
    /// The label's key.
    pub key: Text,
    /// What must hold of it.
    pub operator: Operator,
}

/// The operators of `matchExpressions`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operator {
    /// The label exists and has one of these values.
    In(BTreeSet<Text>),
    /// The label does not exist, or has none of these values.
    NotIn(BTreeSet<Text>),
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
}

impl Selector {
    /// Selects everything: `{}` in the API.
    pub fn everything() -> Self {
        Self::default()
    }

    /// From `matchLabels` and `matchExpressions`; equal selectors compare equal however they were
    /// spelt.
    pub fn new(match_labels: &Labels, expressions: impl IntoIterator<Item = Requirement>) -> Self {
        let exact = match_labels.iter().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In([value.clone()].into()),
        });
        let mut requirements: Vec<_> = exact.chain(expressions).collect();
        requirements.sort_unstable();
        requirements.dedup();
        Self { requirements }
    }

    /// The requirements, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True if these labels are selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.holds(labels))
    }
}

impl From<&Labels> for Selector {
    fn from(match_labels: &Labels) -> Self {
        Self::new(match_labels, [])
    }
}

impl Requirement {
    /// True if the requirement holds of these labels.
    pub fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Selector {
    /// The form `kubectl -l` takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("all");
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let list =
            |values: &BTreeSet<Text>| values.iter().map(|v| &**v).collect::<Vec<_>>().join(",");
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Operator::In(values) => write!(f, "{key} in ({})", list(values)),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|&(key, value)| (key.into(), value.into()))
            .collect()
    }

    fn expression(key: &str, operator: Operator) -> Requirement {
        Requirement {
            key: key.into(),
            operator,
        }
    }

    fn values(values: &[&str]) -> BTreeSet<Text> {
        values.iter().map(|&value| value.into()).collect()
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(Selector::everything().matches(&labels(&[])));
        assert!(Selector::everything().matches(&labels(&[("a", "b")])));
    }

    #[test]
    fn operators_follow_the_api() {
        let web = labels(&[("app", "web"), ("tier", "front")]);
        let matches = |key, operator| {
            Selector::new(&Labels::new(), [expression(key, operator)]).matches(&web)
        };
        assert!(matches("app", Operator::In(values(&["web", "api"]))));
        assert!(!matches("app", Operator::In(values(&["api"]))));
        assert!(!matches("none", Operator::In(values(&["web"]))));
        assert!(
            matches("none", Operator::NotIn(values(&["web"]))),
            "a missing label is not in"
        );
        assert!(!matches("app", Operator::NotIn(values(&["web"]))));
        assert!(matches("app", Operator::Exists));
        assert!(!matches("none", Operator::Exists));
        assert!(matches("none", Operator::DoesNotExist));
        assert!(!matches("app", Operator::DoesNotExist));
    }

    #[test]
    fn requirements_are_a_conjunction() {
        let selector = Selector::new(
            &labels(&[("app", "web")]),
            [expression("tier", Operator::Exists)],
        );
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "x")])));
        assert!(!selector.matches(&labels(&[("app", "web")])));
        assert_eq!(selector.to_string(), "app=web,tier");
    }

    #[test]
    fn equal_selectors_are_equal_however_spelt() {
        let short = Selector::from(&labels(&[("app", "web")]));
        let long = Selector::new(
            &Labels::new(),
            [expression("app", Operator::In(values(&["web"])))],
        );
        assert_eq!(short, long);
    }
}
