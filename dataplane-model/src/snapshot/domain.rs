//! Domain names, and what they resolve to.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::Text;

/// The longest name, in octets as text without the last dot (RFC 1035 section 2.3.4).
const LONGEST: usize = 253;
/// The longest label, in octets.
const LONGEST_LABEL: usize = 63;

/// A name with the addresses that its answers gave, while they hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain {
    /// In lower case, without the last dot.
    pub name: Text,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// `domainNames` of a ClusterNetworkPolicy: a name, or all names below one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DomainPattern {
    /// In lower case, without the last dot and without the wildcard.
    name: Text,
    /// Names with one or more labels before it, and not the name itself.
    below: bool,
}

impl DomainPattern {
    /// Reads one as the API writes it; `None` if it is none. Upper and lower case are alike
    /// (RFC 4343).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let mut labels = name.split('.');
        let is_name = name.len() <= LONGEST && name.contains('.') && labels.all(is_label);
        is_name.then(|| Self {
            name: name.to_ascii_lowercase().into(),
            below,
        })
    }

    /// True for a name, given in lower case and without the last dot.
    pub fn matches(&self, name: &str) -> bool {
        if !self.below {
            return *self.name == *name;
        }
        let before = name.strip_suffix(&*self.name);
        let labels = before.and_then(|before| before.strip_suffix('.'));
        labels.is_some_and(|labels| !labels.is_empty())
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wildcard = if self.below { "*." } else { "" };
        write!(f, "{wildcard}{}", self.name)
    }
}

fn is_label(label: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let bytes = label.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= LONGEST_LABEL
        && bytes.iter().all(inner)
        // The API's pattern lets a label begin with an underscore.
        && ends[0].is_some_and(|byte| *byte != b'-')
        && ends[1].is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_or_more_labels() {
        let matches =
            |pattern: &str, name: &str| DomainPattern::parse(pattern).unwrap().matches(name);
        for (pattern, name, expected) in [
            ("kubernetes.io", "kubernetes.io", true),
            ("kubernetes.io", "www.kubernetes.io", false),
            ("kubernetes.io", "my-kubernetes.io", false),
            ("Kubernetes.IO.", "kubernetes.io", true),
            ("*.kubernetes.io", "www.kubernetes.io", true),
            ("*.kubernetes.io", "latest.blog.kubernetes.io", true),
            ("*.kubernetes.io", "kubernetes.io", false),
            ("*.kubernetes.io", ".kubernetes.io", false),
            ("*.kubernetes.io", "my-kubernetes.io", false),
            ("*.kubernetes.io", "wikipedia.org", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_the_api_does_not_allow_is_no_pattern() {
        for text in [
            "", ".", "io", "*", "*.", "*.io", "a.*.b", "**.a.b", "a..b", "-a.b", "a.b-", "a b.c",
        ] {
            assert_eq!(DomainPattern::parse(text), None, "{text}");
        }
        let long = format!("{}.io", "a".repeat(64));
        assert_eq!(DomainPattern::parse(&long), None);
        assert!(DomainPattern::parse(&long[1..]).is_some());
        assert_eq!(
            DomainPattern::parse("*._A_b.io.").unwrap().to_string(),
            "*._a_b.io"
        );
    }
}
