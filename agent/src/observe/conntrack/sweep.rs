//! Removing flows that are over, a slice of a table at a time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dataplane_common::abi::{Abi, Addr4, Addr6, Address, CtKey, CtVal, capacity, ct_flags, name};
use dataplane_common::decide::conntrack::State;

use super::in_use::{self, InUse};
use super::list::ip;
use super::{Family, Flows, belongs, front_key, initiator_tuple, is_front, is_over, other_tuple};
use crate::bpf::{Error, Jiffies, Maps, Pass, Table};
use crate::metrics::{FAMILIES, Metrics};

/// Entries of one slice.
const SLICE: usize = 1_024;
/// Between two slices of a pass.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two passes.
const REST: Duration = Duration::from_secs(2);

/// What the last full pass over each table found: IPv4, IPv6.
#[derive(Debug, Default)]
pub struct Census([AtomicU64; 2]);

impl Census {
    /// Entries that stay.
    pub fn entries(&self) -> [u64; 2] {
        [0, 1].map(|family| self.0[family].load(Ordering::Relaxed))
    }
}

/// Walks the tables of flows over and over.
pub struct Sweeper {
    census: Arc<Census>,
    metrics: Arc<Metrics>,
    v4: Side<Addr4>,
    v6: Side<Addr6>,
    half_open: Table<u32, u32>,
    counts: BTreeMap<u32, u32>,
    in_use: Arc<InUse>,
    pass: in_use::Pass,
    jiffies: Jiffies,
    hz: u32,
}

/// What a slice did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sweep {
    /// Entries looked at.
    pub examined: usize,
    /// Entries removed.
    pub removed: usize,
    /// It was the last one of a pass over all tables.
    pub pass_ended: bool,
}

impl Sweeper {
    /// Takes the tables. `hz` is the kernel's tick rate.
    ///
    /// # Errors
    ///
    /// A map is missing, or the kernel's clock cannot be read.
    pub fn new(maps: &Maps, hz: u32, metrics: Arc<Metrics>) -> Result<Self, Error> {
        Ok(Self {
            census: Arc::default(),
            metrics,
            v4: Side::new(maps)?,
            v6: Side::new(maps)?,
            half_open: maps.table(name::HALF_OPEN)?,
            counts: BTreeMap::new(),
            in_use: Arc::default(),
            pass: in_use::Pass::default(),
            jiffies: Jiffies::new().map_err(clock_error)?,
            hz,
        })
    }

    /// Where the passes leave their counts.
    pub fn census(&self) -> Arc<Census> {
        Arc::clone(&self.census)
    }

    /// Who may ask which addresses flows lead to.
    pub fn in_use(&self) -> Arc<InUse> {
        Arc::clone(&self.in_use)
    }

    /// Sweeps until the task is dropped. A table that cannot be read is tried again.
    ///
    /// Steps run on another thread: the kernel takes milliseconds to find that a large table has few
    /// entries, and nothing that happens meanwhile is to wait for that.
    pub async fn run(mut self) {
        loop {
            let step = move || {
                let swept = self.step(SLICE);
                (self, swept)
            };
            let swept;
            (self, swept) = match tokio::task::spawn_blocking(step).await {
                Ok(done) => done,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime ends.
                    Err(_) => return,
                },
            };
            let pause = match swept {
                Ok(sweep) if sweep.pass_ended => REST,
                // A table full of what is over, as after a flood, is emptied without pauses.
                Ok(sweep) if sweep.removed * 4 > sweep.examined => Duration::ZERO,
                Ok(_) => PAUSE,
                Err(error) => {
                    tracing::warn!(%error, "sweeping the table of flows");
                    REST
                }
            };
            if pause.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Sweeps about `size` entries, at the present time.
    ///
    /// # Errors
    ///
    /// The kernel's. The pass begins anew with the next step.
    pub fn step(&mut self, size: usize) -> Result<Sweep, Error> {
        let now = self.jiffies.now_low().map_err(clock_error)?;
        self.step_at(now, size)
    }

    /// As [`step`](Self::step), at a time given as the low 32 bits of jiffies.
    ///
    /// # Errors
    ///
    /// As for [`step`](Self::step).
    pub fn step_at(&mut self, now: u32, size: usize) -> Result<Sweep, Error> {
        let clock = Clock { now, hz: self.hz };
        let swept = self.slice(clock, size);
        if swept.is_err() {
            self.begin();
        }
        let mut sweep = swept?;
        if self.v4.ended && self.v6.ended {
            self.v4.tally.tell(0, &self.census, &self.metrics);
            self.v6.tally.tell(1, &self.census, &self.metrics);
            let counted = self.write_half_open();
            self.in_use.end(std::mem::take(&mut self.pass));
            self.begin();
            counted?;
            sweep.pass_ended = true;
        }
        Ok(sweep)
    }

    fn slice(&mut self, clock: Clock, size: usize) -> Result<Sweep, Error> {
        if self.v4.ended {
            self.v6.slice(clock, size, &mut self.counts, &mut self.pass)
        } else {
            self.v4.slice(clock, size, &mut self.counts, &mut self.pass)
        }
    }

    fn begin(&mut self) {
        self.v4.begin();
        self.v6.begin();
        self.counts.clear();
        self.pass = self.in_use.begin();
    }

    /// Writes the counts of the pass where the programs' own have gone astray. What they count
    /// meanwhile may be lost; the next pass corrects that.
    fn write_half_open(&mut self) -> Result<(), Error> {
        let mut wrong = Vec::new();
        let mut pass = Pass::default();
        while let Some(slice) = self.half_open.slice(&mut pass, SLICE)? {
            for (place, count) in slice {
                let counted = self.counts.get(&place).copied().unwrap_or(0);
                if counted != count {
                    wrong.push((place, counted));
                }
            }
        }
        self.half_open.put_all(&wrong).map_err(|(_, error)| error)
    }
}

#[derive(Clone, Copy)]
struct Clock {
    now: u32,
    hz: u32,
}

/// One family's table, and how far its pass has come.
struct Side<A> {
    flows: Flows<A>,
    pass: Pass,
    ended: bool,
    tally: Tally,
}

/// What a pass has met so far.
#[derive(Clone, Copy, Default)]
struct Tally {
    examined: usize,
    removed: usize,
    busy: Duration,
}

impl Tally {
    fn tell(&self, family: usize, census: &Census, metrics: &Metrics) {
        let stay = self.examined.saturating_sub(self.removed) as u64;
        census.0[family].store(stay, Ordering::Relaxed);
        metrics.swept(FAMILIES[family], self.busy, self.removed as u64);
    }
}

impl<A: Family> Side<A>
where
    CtKey<A>: Abi + Ord,
    CtVal<A>: Abi,
{
    fn new(maps: &Maps) -> Result<Self, Error> {
        Ok(Self {
            flows: A::table(maps)?,
            pass: Pass::default(),
            ended: false,
            tally: Tally::default(),
        })
    }

    fn begin(&mut self) {
        self.pass = Pass::default();
        self.ended = false;
        self.tally = Tally::default();
    }

    fn slice(
        &mut self,
        clock: Clock,
        size: usize,
        counts: &mut BTreeMap<u32, u32>,
        pass: &mut in_use::Pass,
    ) -> Result<Sweep, Error> {
        let began = Instant::now();
        let mut sweep = Sweep::default();
        let Some(entries) = self.flows.slice(&mut self.pass, size)? else {
            self.ended = true;
            return Ok(sweep);
        };
        sweep.examined = entries.len();
        for (key, value) in entries {
            sweep.removed += if is_front(&value) {
                self.sweep_front(&key, &value)?
            } else if is_over(key.proto, &value, clock.now, clock.hz) {
                self.sweep_main(&key, clock)?
            } else {
                count(&value, counts);
                if pass.looks() && is_in_use(&value) {
                    pass.meet(ip(initiator_tuple(&key, &value).dst));
                }
                0
            };
        }
        self.tally.examined += sweep.examined;
        self.tally.removed += sweep.removed;
        self.tally.busy += began.elapsed();
        Ok(sweep)
    }

    /// Removes a main entry with its front, if it is still over: since it was listed, a packet
    /// may have come, or a new flow may have taken its place.
    fn sweep_main(&self, key: &CtKey<A>, clock: Clock) -> Result<usize, Error> {
        let Some(value) = self.flows.get(key)? else {
            return Ok(0);
        };
        if is_front(&value) || !is_over(key.proto, &value, clock.now, clock.hz) {
            return Ok(0);
        }
        let mut removed = 0;
        if let Some(front) = front_key(key, &value)
            && let Some(entry) = self.flows.get(&front)?
            && is_front(&entry)
            && other_tuple(&entry).key(front.proto) == *key
        {
            removed += usize::from(self.flows.delete(&front)?);
        }
        removed += usize::from(self.flows.delete(key)?);
        Ok(removed)
    }

    /// Removes a front without main entry. It goes with its main when that is over.
    fn sweep_front(&self, key: &CtKey<A>, listed: &CtVal<A>) -> Result<usize, Error> {
        let main = other_tuple(listed).key(key.proto);
        let stands = |main: Option<CtVal<A>>, front: &CtVal<A>| {
            main.is_some_and(|main| belongs(key, front, &main))
        };
        if stands(self.flows.get(&main)?, listed) {
            return Ok(0);
        }
        // A new flow may have written both since: the main entry first, so it is read last.
        match self.flows.get(key)? {
            Some(front)
                if is_front(&front)
                    && !stands(self.flows.get(&other_tuple(&front).key(key.proto))?, &front) =>
            {
                self.flows.delete(key).map(usize::from)
            }
            _ => Ok(0),
        }
    }
}

/// True for a flow that may need what is asked about: a pod of this node began it, it was not refused, and it has
/// not ended.
fn is_in_use<A>(value: &CtVal<A>) -> bool {
    let state = State::from_number(value.state);
    let of_pod = value.initiator_ifindex != 0 && value.flags & ct_flags::OUTSIDE == 0;
    of_pod && value.denied == 0 && !matches!(state, State::TimeWait | State::Reset)
}

/// Counts a half-open flow for the initiator's pod and for the node.
fn count<A: Address>(value: &CtVal<A>, counts: &mut BTreeMap<u32, u32>) {
    if value.flags & ct_flags::HALF_OPEN == 0 {
        return;
    }
    let is_pods = value.initiator_ifindex != 0 && value.flags & ct_flags::OUTSIDE == 0;
    if is_pods {
        let place = value.initiator_ifindex & (capacity::SUBJECTS - 1);
        *counts.entry(place).or_default() += 1;
    }
    *counts.entry(capacity::HALF_OPEN - 1).or_default() += 1;
}

fn clock_error(source: std::io::Error) -> Error {
    Error::Kernel {
        what: "reading the kernel's clock",
        source,
    }
}
