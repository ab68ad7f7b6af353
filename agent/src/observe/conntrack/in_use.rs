//! Which of some addresses live flows lead to.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Addresses that are asked about, and what full passes over the tables of flows find.
#[derive(Debug, Default)]
pub struct InUse(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    asked: BTreeSet<IpAddr>,
    /// What the last full pass looked for, and what of that it met.
    last: Pass,
}

/// What a pass looks for and what of that it has met.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    asked: BTreeSet<IpAddr>,
    met: BTreeSet<IpAddr>,
}

impl InUse {
    /// Asks about these addresses, and about no others.
    pub fn ask(&self, addresses: BTreeSet<IpAddr>) {
        self.state().asked = addresses;
    }

    /// True unless a full pass that began after the address was asked about met no flow to it.
    pub fn may_be(&self, address: IpAddr) -> bool {
        let state = self.state();
        let answered = state.asked.contains(&address) && state.last.asked.contains(&address);
        !answered || state.last.met.contains(&address)
    }

    /// A pass begins.
    pub(super) fn begin(&self) -> Pass {
        Pass {
            asked: self.state().asked.clone(),
            met: BTreeSet::new(),
        }
    }

    /// A pass has come to its end.
    pub(super) fn end(&self, pass: Pass) {
        self.state().last = pass;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Something is looked for.
    pub(super) fn looks(&self) -> bool {
        !self.asked.is_empty()
    }

    /// A live flow leads to this address.
    pub(super) fn meet(&mut self, address: IpAddr) {
        if self.asked.contains(&address) {
            self.met.insert(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pass_that_began_after_the_question_answers_it() {
        let [one, two] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let in_use = InUse::default();
        let early = in_use.begin();
        in_use.ask([one, two].into());
        in_use.end(early);
        assert!(in_use.may_be(one) && in_use.may_be(two));
        let mut pass = in_use.begin();
        pass.meet(one);
        pass.meet([192, 0, 2, 3].into());
        in_use.end(pass);
        assert!(in_use.may_be(one) && !in_use.may_be(two));
        in_use.ask([one].into());
        assert!(in_use.may_be(two), "nobody asked");
    }
}
