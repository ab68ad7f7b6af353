//! Domain names of rules: what the DNS proxy learns, from an answer to the maps.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dataplane_model::compile::PolicyState;
use dataplane_model::snapshot::{Event, Interface};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;

use super::{Agent, SETTLE};
use crate::dns::names::Names;
use crate::dns::{Answered, MACS, Proxy, Wanted};
use crate::observe::conntrack::InUse;

/// Answers that wait for the agent.
const WAITING: usize = 1_024;
/// Between two looks at addresses whose time is over while flows lead to them.
const AGAIN: Duration = Duration::from_secs(5);

/// Names, their proxy, and answers that are held back.
pub(super) struct DomainNames {
    names: Names,
    /// From the first rule with a name on.
    proxy: Option<Proxy>,
    /// It was needed, and there can be none.
    is_refused: bool,
    /// The policy whose names are looked out for.
    followed: Option<Arc<PolicyState>>,
    learnt: (mpsc::Sender<Answered>, mpsc::Receiver<Answered>),
    held: Vec<oneshot::Sender<()>>,
    in_use: Arc<InUse>,
    due: Option<Instant>,
}

impl DomainNames {
    /// Those of a file.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn load(path: &Path, in_use: Arc<InUse>) -> io::Result<Self> {
        let mut domains = Self {
            names: Names::load(path, SystemTime::now())?,
            proxy: None,
            is_refused: false,
            followed: None,
            learnt: mpsc::channel(WAITING),
            held: Vec::new(),
            in_use,
            due: None,
        };
        domains.set_due();
        Ok(domains)
    }

    /// The next answer of the proxy.
    pub(super) async fn next(&mut self) -> Option<Answered> {
        self.learnt.1.recv().await
    }

    /// When names may hold no longer.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The proxy's device, which is known without looking.
    pub(super) fn device(device: Interface) -> Interface {
        let [mac, host_mac] = MACS;
        Interface {
            mac,
            host_mac,
            redirect_ok: true,
            late: false,
            closed: false,
            is_dns_proxy: true,
            ..device
        }
    }

    fn set_due(&mut self) {
        let now = SystemTime::now();
        self.due = self.names.first_end().map(|end| {
            // What is over already is in use.
            let left = end.duration_since(now).unwrap_or(AGAIN);
            Instant::now() + left.max(Duration::from_millis(1))
        });
    }

    /// Looks out for the names that rules ask for, if policy is not the very same as before.
    fn follow(&mut self, policy: &Arc<PolicyState>, is_possible: bool) {
        let mut followed = self.followed.iter();
        if followed.any(|known| Arc::ptr_eq(known, policy)) {
            return;
        }
        let wanted: BTreeSet<_> = policy.domains().cloned().collect();
        self.want(Arc::new(wanted), is_possible);
        self.followed = Some(Arc::clone(policy));
    }

    /// Rules in force ask for these names.
    fn want(&mut self, wanted: Wanted, is_possible: bool) {
        match &self.proxy {
            Some(proxy) => proxy.want(wanted),
            None if wanted.is_empty() || self.is_refused => {}
            None if is_possible => {
                self.proxy = Some(Proxy::start(wanted, self.learnt.0.clone()));
            }
            None => {
                self.is_refused = true;
                warn!(
                    "rules with domain names match nothing: the DNS proxy needs CAP_SYS_ADMIN for its network namespace"
                );
            }
        }
    }

    fn expire(&mut self) -> Vec<Event> {
        let now = SystemTime::now();
        let in_use = Arc::clone(&self.in_use);
        let events = self
            .names
            .expire(now, |address: IpAddr| in_use.may_be(address));
        in_use.ask(self.names.expired(now));
        self.set_due();
        events
    }
}

impl Agent {
    /// What was known before holds from the start.
    pub(super) fn recall_names(&mut self) {
        for event in self.domains.names.events() {
            self.engine.fold(event, SETTLE);
        }
    }

    /// Takes an answer in; it goes out when its addresses are in force.
    pub(super) fn on_answer(&mut self, answered: Answered) {
        let events = self
            .domains
            .names
            .learn(&answered.resolved, SystemTime::now());
        for event in events {
            self.engine.fold(event, SETTLE);
        }
        self.domains.set_due();
        // Whoever waited may have had enough.
        self.domains.held.retain(|done| !done.is_closed());
        self.domains.held.push(answered.done);
        self.release();
    }

    /// Lets answers out if nothing of policy is left to be written.
    pub(super) fn release(&mut self) {
        if self.engine.state().is_policy_settled() {
            for done in self.domains.held.drain(..) {
                // Whoever waited may have had enough.
                let _ = done.send(());
            }
        }
    }

    /// After a round: names that its rules ask for are looked out for, and answers go out.
    pub(super) fn follow_names(&mut self) {
        let policy = &self.engine.state().policy().policy;
        let is_possible = self.engine.snapshot().node.has_dns_proxy;
        self.domains.follow(policy, is_possible);
        self.publisher.domains(&self.domains.names);
        self.release();
    }

    /// Lets go of names that hold no longer.
    pub(super) fn expire_names(&mut self) {
        for event in self.domains.expire() {
            self.engine.fold(event, SETTLE);
        }
    }
}
