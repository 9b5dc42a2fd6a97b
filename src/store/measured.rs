//! What is measured of the queue and of the sets that are taken from it, apart for those that read and those that write.

use std::time::Instant;

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::request::{Kind, Request};
use crate::telemetry::{Label, durations};

#[derive(Debug)]
pub(super) struct Measured {
    waits: Family<Label, Histogram>,
    work: Family<Label, Histogram>,
    sizes: Family<Label, Histogram>,
    waiting: Gauge,
    /// Those of sets that read, and of those that write: nobody looks them up at each request.
    of: [OfSets; 2],
}

#[derive(Debug)]
struct OfSets {
    waits: Histogram,
    work: Histogram,
    sizes: Histogram,
}

impl Default for Measured {
    fn default() -> Self {
        let waits = Family::<Label, Histogram>::new_with_constructor(durations);
        let work = Family::<Label, Histogram>::new_with_constructor(durations);
        let sizes = Family::<Label, Histogram>::new_with_constructor(set_sizes);
        let of = ["read", "write"].map(|access| {
            let label = [("access", access)];
            OfSets {
                waits: waits.get_or_create_owned(&label),
                work: work.get_or_create_owned(&label),
                sizes: sizes.get_or_create_owned(&label),
            }
        });
        Self { waits, work, sizes, waiting: Gauge::default(), of }
    }
}

fn set_sizes() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
}

impl Measured {
    pub(super) fn register(&self, registry: &mut Registry) {
        let Self { waits, work, sizes, waiting, .. } = self;
        let help = "The time that a request waits for its turn at the database";
        registry.register_with_unit("database_wait", help, Unit::Seconds, waits.clone());
        let help = "The time that a set of requests takes at the database";
        registry.register_with_unit("database_work", help, Unit::Seconds, work.clone());
        registry.register("database_set_size", "Requests that travel to the database together", sizes.clone());
        registry.register("database_waiting", "Requests that wait for their turn at the database", waiting.clone());
    }

    fn of(&self, kind: Kind) -> &OfSets {
        &self.of[usize::from(kind.writes())]
    }

    /// Notes how many wait now.
    pub(super) fn wait(&self, requests: usize) {
        self.waiting.set(i64::try_from(requests).unwrap_or(i64::MAX));
    }

    /// Notes that these have their turn, and gives back when that is.
    pub(super) fn taken(&self, kind: Kind, requests: &[Request]) -> Instant {
        let now = Instant::now();
        // It had its turn before, and waits for somebody else's lock since.
        if kind == Kind::Patient {
            return now;
        }
        for request in requests {
            self.of(kind).waits.observe(now.saturating_duration_since(request.since()).as_secs_f64());
            if let Some(turn) = request.turn() {
                turn.take(now);
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a set is small")]
        self.of(kind).sizes.observe(requests.len() as f64);
        now
    }

    /// Notes that a set has been served.
    pub(super) fn done(&self, kind: Kind, since: Instant) {
        self.of(kind).work.observe(since.elapsed().as_secs_f64());
    }
}
