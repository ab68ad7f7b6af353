//! A verdict from the rows that were found (networking.k8s.io/v1, policy.networking.k8s.io/v1alpha2).

use crate::abi::{Claim, RowVal, action};

/// A verdict and the rule behind it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Not 0 if the packet may pass.
    pub allowed: u32,
    /// The rule that decides; 0 for none: a default deny, or nothing that speaks against the packet.
    pub rule: u32,
}

impl Decision {
    /// Nothing speaks against the packet.
    pub const UNISOLATED: Self = Self {
        allowed: 1,
        rule: 0,
    };
    /// No rule of the NetworkPolicies that isolate the pod allows.
    pub const DEFAULT_DENY: Self = Self {
        allowed: 0,
        rule: 0,
    };
}

/// What a ruleset's rows are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// NetworkPolicies isolate the pod in this direction.
    pub isolates: bool,
    /// The peer is one that NetworkPolicies do not police.
    pub exempt: bool,
}

impl RowVal {
    /// No rule claims.
    pub const EMPTY: Self = Self {
        admin: Claim::NONE,
        below: Claim::NONE,
    };

    /// Adds what another row says: of each tier, the first rule counts.
    #[inline(always)]
    pub fn join(&mut self, other: &Self) {
        if other.admin.order < self.admin.order {
            self.admin = other.admin;
        }
        if other.below.order < self.below.order {
            self.below = other.below;
        }
    }

    /// The verdict: tier Admin, then the NetworkPolicies, if any isolates the pod, else Baseline.
    #[inline(always)]
    pub fn decide(&self, terms: Terms) -> Decision {
        if let Some(decision) = of(&self.admin) {
            return decision;
        }
        if terms.isolates && terms.exempt {
            return Decision::UNISOLATED;
        }
        match of(&self.below) {
            Some(decision) => decision,
            None if terms.isolates => Decision::DEFAULT_DENY,
            None => Decision::UNISOLATED,
        }
    }

    /// True if another row beside this one changes no verdict, whatever third there is. Rules of
    /// NetworkPolicies only accept: one is as good as another.
    pub fn covers(&self, other: &Self, isolates: bool) -> bool {
        let accepts = isolates && self.below != Claim::NONE;
        other.admin.order >= self.admin.order && (accepts || other.below.order >= self.below.order)
    }
}

#[inline(always)]
fn of(claim: &Claim) -> Option<Decision> {
    let allowed = match claim.action() {
        action::ACCEPT => 1,
        action::DENY => 0,
        _ => return None,
    };
    Some(Decision {
        allowed,
        rule: claim.rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISOLATED: Terms = Terms {
        isolates: true,
        exempt: false,
    };
    const OPEN: Terms = Terms {
        isolates: false,
        exempt: false,
    };
    const EXEMPT: Terms = Terms {
        isolates: true,
        exempt: true,
    };

    fn admin(place: u32, action: u32) -> RowVal {
        RowVal {
            admin: Claim::new(place, action, 100 + place),
            ..RowVal::EMPTY
        }
    }

    fn below(place: u32, action: u32) -> RowVal {
        RowVal {
            below: Claim::new(place, action, 200 + place),
            ..RowVal::EMPTY
        }
    }

    fn joined(rows: &[RowVal]) -> RowVal {
        let mut all = RowVal::EMPTY;
        rows.iter().for_each(|row| all.join(row));
        all
    }

    fn allowed(rule: u32) -> Decision {
        Decision { allowed: 1, rule }
    }

    fn denied(rule: u32) -> Decision {
        Decision { allowed: 0, rule }
    }

    #[test]
    fn without_a_claim_only_isolation_denies() {
        assert_eq!(RowVal::EMPTY.decide(OPEN), Decision::UNISOLATED);
        assert_eq!(RowVal::EMPTY.decide(ISOLATED), Decision::DEFAULT_DENY);
        assert_eq!(RowVal::EMPTY.decide(EXEMPT), Decision::UNISOLATED);
    }

    #[test]
    fn the_first_rule_of_a_tier_decides_whatever_row_it_is_in() {
        let rows = [
            admin(3, action::ACCEPT),
            admin(1, action::DENY),
            admin(2, action::ACCEPT),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let rows = order.map(|index: usize| rows[index]);
            assert_eq!(joined(&rows).decide(OPEN), denied(101));
        }
    }

    #[test]
    fn admin_overrules_what_is_below_unless_it_passes() {
        let deny = below(1, action::DENY);
        let accept = below(1, action::ACCEPT);
        assert_eq!(
            joined(&[admin(1, action::ACCEPT), deny]).decide(OPEN),
            allowed(101)
        );
        assert_eq!(
            joined(&[admin(1, action::DENY), accept]).decide(ISOLATED),
            denied(101)
        );
        let pass = admin(1, action::PASS);
        assert_eq!(
            joined(&[pass, admin(2, action::DENY), accept]).decide(OPEN),
            allowed(201)
        );
        assert_eq!(joined(&[pass, deny]).decide(OPEN), denied(201));
        assert_eq!(joined(&[pass]).decide(ISOLATED), Decision::DEFAULT_DENY);
    }

    #[test]
    fn what_network_policies_do_not_police_is_still_denied_by_admin() {
        let accept = below(1, action::ACCEPT);
        assert_eq!(accept.decide(EXEMPT), Decision::UNISOLATED);
        assert_eq!(
            joined(&[admin(1, action::DENY), accept]).decide(EXEMPT),
            denied(101)
        );
        let baseline = Terms {
            isolates: false,
            ..EXEMPT
        };
        assert_eq!(below(1, action::DENY).decide(baseline), denied(201));
    }

    #[test]
    fn a_row_that_is_covered_changes_no_verdict() {
        let all = [action::ACCEPT, action::DENY, action::PASS];
        for (terms, below_actions) in [(OPEN, &all[..]), (ISOLATED, &all[..1])] {
            let claims = |actions: &[u32]| {
                let places =
                    (1..3).flat_map(|place| actions.iter().map(move |action| (place, *action)));
                let claims = places.map(|(place, action)| Claim::new(place, action, place));
                std::iter::once(Claim::NONE)
                    .chain(claims)
                    .collect::<Vec<_>>()
            };
            let below = claims(below_actions);
            let rows: Vec<RowVal> = claims(&all)
                .into_iter()
                .flat_map(|admin| below.iter().map(move |&below| RowVal { admin, below }))
                .collect();
            for any in &rows {
                for own in rows.iter().filter(|own| any.covers(own, terms.isolates)) {
                    for third in &rows {
                        let both = joined(&[*any, *own, *third]).decide(terms).allowed;
                        let without = joined(&[*any, *third]).decide(terms).allowed;
                        assert_eq!(both, without, "{any:?} {own:?} {third:?}");
                    }
                }
            }
        }
    }
}
