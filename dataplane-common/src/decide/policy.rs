//! NetworkPolicy's verdict from the rows that were found (networking.k8s.io/v1).

use crate::abi::{RowVal, row_flags};

/// A verdict and the rule behind it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Not 0 if the packet may pass.
    pub allowed: u32,
    /// The rule that allows; 0 for none: a default deny, or a pod that no policy isolates.
    pub rule: u32,
}

impl Decision {
    /// A pod that no policy isolates in this direction.
    pub const UNISOLATED: Self = Self {
        allowed: 1,
        rule: 0,
    };
    /// No rule of the policies that isolate the pod allows.
    pub const DEFAULT_DENY: Self = Self {
        allowed: 0,
        rule: 0,
    };

    /// Adds what a row says: rules are a union.
    #[inline(always)]
    pub fn or(self, row: RowVal) -> Self {
        if row.flags & row_flags::ALLOW == 0 || (self.allowed != 0 && self.rule <= row.rule) {
            return self;
        }
        Self {
            allowed: 1,
            rule: row.rule,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_a_union_and_the_smallest_is_named() {
        let row = |rule| RowVal {
            rule,
            flags: row_flags::ALLOW,
        };
        let none = RowVal { rule: 1, flags: 0 };
        let deny = Decision::DEFAULT_DENY;
        assert_eq!(deny.or(none), deny);
        assert_eq!(deny.or(row(7)).or(row(3)).rule, 3);
        assert_eq!(deny.or(row(3)).or(row(7)).rule, 3);
        assert_eq!(deny.or(row(3)).or(none).allowed, 1);
    }
}
