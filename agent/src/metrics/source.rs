//! The following of each kind at the API server.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::{Label, Labels2, Registrar, store};
use crate::admin::protocol::WatchedKind;
use crate::source::api::Phase;

/// Metrics of a source.
#[derive(Debug)]
pub(super) struct Source {
    state: Family<Labels2, Gauge>,
    synced: Family<Label, Gauge>,
    objects: Family<Label, Gauge>,
    bad: Family<Label, Gauge>,
    events: Family<Label, Counter>,
    lists: Family<Label, Counter>,
    failures: Family<Label, Counter>,
}

impl Source {
    pub(super) fn register(to: &mut Registrar<'_>) -> Self {
        Self {
            state: to.add("sluice_source_state", "1 for the state that the following of a kind is in", Family::default()),
            synced: to.add("sluice_source_synced", "1 once a full list of the kind was complete", Family::default()),
            objects: to.add("sluice_source_objects", "Objects known", Family::default()),
            bad: to.add("sluice_source_bad_objects", "Objects that cannot be read", Family::default()),
            events: to.add("sluice_source_events", "Events of watches, bookmarks among them", Family::default()),
            lists: to.add("sluice_source_lists", "Full lists: the first one, and one each time that a watch could not go on where it was", Family::default()),
            failures: to.add("sluice_source_watch_failures", "Lists and watches that failed", Family::default()),
        }
    }

    pub(super) fn read(&self, kinds: &[WatchedKind]) {
        for kind in kinds {
            for phase in Phase::ALL {
                let labels = [
                    ("kind", kind.kind.clone()),
                    ("state", phase.name().to_owned()),
                ];
                let is_in = kind.state == phase.name();
                self.state.get_or_create(&labels).set(is_in.into());
            }
            let label = [("kind", kind.kind.clone())];
            self.synced.get_or_create(&label).set(kind.synced.into());
            for (gauge, value) in [(&self.objects, kind.objects), (&self.bad, kind.bad_objects)] {
                gauge.get_or_create(&label).set(value as i64);
            }
            for (counter, value) in [
                (&self.events, kind.events),
                (&self.lists, kind.lists),
                (&self.failures, kind.failures),
            ] {
                store(&counter.get_or_create(&label), value);
            }
        }
    }
}
