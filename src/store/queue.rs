//! Natural batching: what arrives while the database is busy travels together in the next statement.
//!
//! Requests wait in lines, a line for each kind and in it a queue for each owner. The lanes, of which each has a connection,
//! take sets from them: one that finds requests takes what is there, at once, and nobody waits for a timer. A request that
//! meets an idle lane goes alone.
//!
//! What it guarantees: a set holds requests of one kind. Owners take turns, request by request, so that nobody gets ahead by
//! asking more. While a set that writes is under way, no other has requests of the same owners: one server's writes for
//! one owner are in the order in which they are taken, and never wait for each other in the database.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tokio::{sync::Notify, task::yield_now};

use super::request::{Kind, Request, Subject};
use crate::{
    auth::Owner,
    telemetry::{Label, durations},
};

/// The most requests that one set has.
const MAX_SET: usize = 64;
/// The most rows that the requests of one set may ask for, beside the first one's.
const MAX_ROWS: usize = 1024;
/// The most requests that wait. What comes then is refused.
const MAX_WAITING: usize = 10_000;

/// The kinds of requests that a lane takes, a bit for each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Roles(u16);

impl Roles {
    pub(super) fn of(takes: impl Fn(Kind) -> bool) -> Self {
        Self(Kind::ALL.into_iter().filter(|kind| takes(*kind)).fold(0, |bits, kind| bits | Self::bit(kind)))
    }

    fn bit(kind: Kind) -> u16 {
        1 << (kind as u8)
    }

    fn has(self, kind: Kind) -> bool {
        self.0 & Self::bit(kind) != 0
    }
}

/// The requests that wait, and the lanes that serve them.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    lanes: Vec<(Roles, Notify)>,
    /// Whether a set has requests of one owner only.
    single_owner: bool,
    measured: Measured,
}

/// What is measured of sets, apart for those that read and those that write.
#[derive(Debug)]
struct Measured {
    waits: Family<Label, Histogram>,
    work: Family<Label, Histogram>,
    sizes: Family<Label, Histogram>,
    waiting: Gauge,
}

impl Default for Measured {
    fn default() -> Self {
        let sizes = || Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
        Self {
            waits: Family::new_with_constructor(durations),
            work: Family::new_with_constructor(durations),
            sizes: Family::new_with_constructor(sizes),
            waiting: Gauge::default(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    lines: [Line; Kind::ALL.len()],
    /// The owners of whom writes are under way.
    writing: HashSet<Owner>,
    /// The lanes that wait for work.
    idle: Vec<usize>,
    waiting: usize,
    /// The kind whose turn it is.
    turn: usize,
    is_closed: bool,
}

/// The requests of one kind.
#[derive(Debug, Default)]
struct Line {
    requests: HashMap<Owner, VecDeque<Request>>,
    /// The owners who have any, in turn.
    turns: VecDeque<Owner>,
}

/// A set of requests that a lane has taken. When it is dropped, its owners' next ones can be taken.
#[derive(Debug)]
pub(super) struct Taken {
    queue: Arc<Queue>,
    pub(super) kind: Kind,
    pub(super) requests: Vec<Request>,
    writers: Vec<Owner>,
    since: Instant,
}

impl Queue {
    pub(super) fn new(lanes: impl IntoIterator<Item = Roles>, single_owner: bool) -> Arc<Self> {
        let lanes = lanes.into_iter().map(|roles| (roles, Notify::new())).collect();
        Arc::new(Self { state: Mutex::default(), lanes, single_owner, measured: Measured::default() })
    }

    /// Registers what is measured.
    pub(super) fn register(&self, registry: &mut Registry) {
        let Measured { waits, work, sizes, waiting } = &self.measured;
        let help = "The time that a request waits for its turn at the database";
        registry.register_with_unit("database_wait", help, Unit::Seconds, waits.clone());
        let help = "The time that a set of requests takes at the database";
        registry.register_with_unit("database_work", help, Unit::Seconds, work.clone());
        registry.register("database_set_size", "Requests that travel to the database together", sizes.clone());
        registry.register("database_waiting", "Requests that wait for their turn at the database", waiting.clone());
    }

    /// Looks at what is measured when somebody asks.
    pub(super) fn measure(&self) {
        self.measured.waiting.set(i64::try_from(self.state().waiting).unwrap_or(i64::MAX));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics with it")
    }

    /// Lets a request wait for a lane. It fails if too many wait already, or nobody serves any more.
    pub(super) fn push(&self, request: Request) {
        self.enqueue(request.kind(), request);
    }

    /// Lets a lane that waits for locks serve this request, alone.
    pub(super) fn hand_over(&self, request: Request) {
        self.enqueue(Kind::Patient, request);
    }

    fn enqueue(&self, kind: Kind, request: Request) {
        let mut state = self.state();
        if state.is_closed || state.waiting >= MAX_WAITING {
            drop(state);
            return request.fail(super::closed());
        }
        state.enqueue(kind, request);
        self.wake(&mut state, kind);
    }

    /// Wakes the first idle lane that takes this kind: few lanes make large sets.
    fn wake(&self, state: &mut State, kind: Kind) {
        let first = state.idle.iter().enumerate().filter(|(_, lane)| self.lanes[**lane].0.has(kind));
        if let Some((at, lane)) = first.min_by_key(|(_, lane)| **lane).map(|(at, lane)| (at, *lane)) {
            state.idle.swap_remove(at);
            self.lanes[lane].1.notify_one();
        }
    }

    /// The next set for this lane. Waits for one; there is none any more when the queue has been closed.
    pub(super) async fn take(self: &Arc<Self>, lane: usize) -> Option<Taken> {
        loop {
            // Whoever has just been read from a socket comes along.
            yield_now().await;
            {
                let mut state = self.state();
                if let Some(taken) = self.pick(&mut state, lane) {
                    return Some(taken);
                }
                if state.is_closed {
                    return None;
                }
                if !state.idle.contains(&lane) {
                    state.idle.push(lane);
                }
            }
            self.lanes[lane].1.notified().await;
        }
    }

    /// The next set for this lane, if there is one now.
    pub(super) fn try_take(self: &Arc<Self>, lane: usize) -> Option<Taken> {
        self.pick(&mut self.state(), lane)
    }

    fn pick(self: &Arc<Self>, state: &mut State, lane: usize) -> Option<Taken> {
        let roles = self.lanes[lane].0;
        let kinds = Kind::ALL.len();
        let turn = state.turn;
        let (kind, requests) = (0..kinds)
            .map(|step| Kind::ALL[(turn + step) % kinds])
            .filter(|kind| roles.has(*kind))
            .find_map(|kind| state.set(kind, self.single_owner).map(|set| (kind, set)))?;
        state.turn = (kind as usize + 1) % kinds;
        state.waiting -= requests.len();
        let mut writers: Vec<Owner> = Vec::new();
        if kind.writes() {
            for request in &requests {
                if state.writing.insert(request.owner().clone()) {
                    writers.push(request.owner().clone());
                }
            }
        }
        // What did not fit in is for another lane.
        if !state.lines[kind as usize].turns.is_empty() {
            self.wake(state, kind);
        }
        let since = Instant::now();
        let waits = self.measured.waits.get_or_create_owned(&kind.label());
        for request in &requests {
            waits.observe(since.saturating_duration_since(request.since()).as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "a set is small")]
        self.measured.sizes.get_or_create_owned(&kind.label()).observe(requests.len() as f64);
        Some(Taken { queue: Arc::clone(self), kind, requests, writers, since })
    }

    /// Whether nobody serves any more.
    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// How many lanes it is for.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Takes no more requests, and refuses those that wait.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.waiting = 0;
        let lines = state.lines.iter_mut().flat_map(|line| {
            line.turns.clear();
            line.requests.drain()
        });
        let left: Vec<Request> = lines.flat_map(|(_, requests)| requests).collect();
        drop(state);
        for request in left {
            request.fail(super::closed());
        }
        for (_, lane) in &self.lanes {
            lane.notify_one();
        }
    }
}

impl State {
    fn enqueue(&mut self, kind: Kind, request: Request) {
        self.waiting += 1;
        let Line { requests, turns } = &mut self.lines[kind as usize];
        let owner = request.owner();
        if let Some(queue) = requests.get_mut(owner) {
            queue.push_back(request);
        } else {
            turns.push_back(owner.clone());
            requests.insert(owner.clone(), VecDeque::from([request]));
        }
    }

    /// A set of this kind, if there are requests that may be served now.
    fn set(&mut self, kind: Kind, single_owner: bool) -> Option<Vec<Request>> {
        let Self { lines, writing, .. } = self;
        let Line { requests, turns } = &mut lines[kind as usize];
        let is_single = kind == Kind::Patient;
        let (mut set, mut rows) = (Vec::new(), 0);
        let mut subjects: HashSet<(Owner, Subject)> = HashSet::new();
        let mut passed_over = Vec::new();
        while set.len() < if is_single { 1 } else { MAX_SET }
            && let Some(owner) = turns.pop_front()
        {
            let is_busy = kind.writes() && writing.contains(&owner);
            let is_other = single_owner && set.first().is_some_and(|first: &Request| *first.owner() != owner);
            let queue = requests.get_mut(&owner).expect("who has a turn has a request");
            let next = queue.front().expect("who has a turn has a request");
            let asks_about: Vec<_> = next.subjects().into_iter().flatten().map(|one| (owner.clone(), one)).collect();
            let is_taken = asks_about.iter().any(|subject| subjects.contains(subject));
            let is_too_much = !set.is_empty() && rows + next.weight() > MAX_ROWS;
            if is_busy || is_other || is_taken || is_too_much {
                passed_over.push(owner);
                continue;
            }
            subjects.extend(asks_about);
            rows += next.weight();
            set.extend(queue.pop_front());
            if queue.is_empty() {
                requests.remove(&owner);
            } else {
                turns.push_back(owner);
            }
        }
        // They keep their turns.
        for owner in passed_over.into_iter().rev() {
            turns.push_front(owner);
        }
        (!set.is_empty()).then_some(set)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let work = self.queue.measured.work.get_or_create_owned(&self.kind.label());
        work.observe(self.since.elapsed().as_secs_f64());
        if self.writers.is_empty() {
            return;
        }
        let mut state = self.queue.state();
        for owner in self.writers.drain(..) {
            state.writing.remove(&owner);
        }
        // Somebody may have waited for these owners.
        for kind in Kind::ALL.into_iter().filter(|kind| kind.writes()) {
            if !state.lines[kind as usize].turns.is_empty() {
                self.queue.wake(&mut state, kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use poem_openapi::types::MaybeUndefined;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        auth::{Verifier, token},
        clock::Clock,
        config,
        problem::Fault,
        store::request::{Alteration, Asked, Completion, Listing, Outcome},
        task::{ExpectedVersion, Task, TaskId, TaskStatus},
    };

    async fn owners<const N: usize>() -> [Owner; N] {
        let mut auth = config::Config::default().auth;
        auth.secret = Some("a secret that nobody else knows of".to_owned().into());
        let verifier = Verifier::new(&auth).await.unwrap();
        let mut owners = Vec::new();
        for n in 0..N {
            let token = token::mint(&auth, &format!("user-{n}"), Duration::from_mins(1)).unwrap();
            owners.push(verifier.verify(&token).await.unwrap());
        }
        owners.try_into().unwrap()
    }

    /// A queue before one lane that takes everything.
    fn queue(single_owner: bool) -> Arc<Queue> {
        Queue::new([Roles::of(|_| true)], single_owner)
    }

    fn get(queue: &Queue, owner: &Owner) -> oneshot::Receiver<Result<Task, Fault>> {
        let (asked, answer) = Asked::new(owner.clone(), Clock.new_task_id());
        queue.push(Request::Get(asked));
        answer
    }

    fn toggle(queue: &Queue, owner: &Owner, id: TaskId) -> oneshot::Receiver<Result<Outcome, Fault>> {
        let alteration = Alteration {
            id,
            title: None,
            description: MaybeUndefined::Undefined,
            completion: Completion::Flip,
            always: true,
            at: Clock.now(),
            expected: ExpectedVersion::Any,
            once: None,
        };
        let (asked, answer) = Asked::new(owner.clone(), alteration);
        queue.push(Request::Change(asked));
        answer
    }

    fn of(taken: &Taken) -> Vec<&str> {
        taken.requests.iter().map(|request| request.owner().id()).collect()
    }

    #[tokio::test]
    async fn owners_take_turns() {
        let [ann, bob] = owners().await;
        let queue = queue(false);
        let _answers: Vec<_> = [&ann, &ann, &ann, &bob].map(|owner| get(&queue, owner)).into();
        assert_eq!(of(&queue.try_take(0).unwrap()), ["user-0", "user-1", "user-0", "user-0"]);
        assert!(queue.try_take(0).is_none());
    }

    #[tokio::test]
    async fn a_set_is_bounded_in_requests_and_in_rows() {
        let [ann] = owners().await;
        let queue = queue(false);
        let _answers: Vec<_> = (0..=MAX_SET).map(|_| get(&queue, &ann)).collect();
        assert_eq!(queue.try_take(0).unwrap().requests.len(), MAX_SET);
        assert_eq!(queue.try_take(0).unwrap().requests.len(), 1);

        for (kept, expected) in [(None, [2, 1]), (Some(1), [3, 0])] {
            for _ in 0..3 {
                let listing = Listing { status: TaskStatus::All, after: None, limit: 500, callers: None, kept };
                queue.push(Request::List(Asked::new(ann.clone(), listing).0));
            }
            assert_eq!(expected.map(|_| queue.try_take(0).map_or(0, |taken| taken.requests.len())), expected);
        }
    }

    #[tokio::test]
    async fn a_set_changes_a_task_once_and_an_owner_is_written_in_one_set_at_a_time() {
        let [ann, bob] = owners().await;
        let queue = queue(false);
        let task = Clock.new_task_id();
        let _answers = [toggle(&queue, &ann, task), toggle(&queue, &ann, task), toggle(&queue, &bob, task)];
        // Bob's is another one, whatever its id.
        let first = queue.try_take(0).unwrap();
        assert_eq!(of(&first), ["user-0", "user-1"]);
        assert!(queue.try_take(0).is_none(), "Ann's first is under way");
        drop(first);
        assert_eq!(of(&queue.try_take(0).unwrap()), ["user-0"]);
    }

    #[tokio::test]
    async fn a_set_is_of_one_owner_where_that_is_wanted() {
        let [ann, bob] = owners().await;
        for (single_owner, expected) in [(false, [3, 0]), (true, [2, 1])] {
            let queue = queue(single_owner);
            let _answers: Vec<_> = [&ann, &bob, &ann].map(|owner| get(&queue, owner)).into();
            assert_eq!(expected.map(|_| queue.try_take(0).map_or(0, |taken| taken.requests.len())), expected);
        }
    }

    #[tokio::test]
    async fn what_is_too_much_or_too_late_is_refused() {
        let [ann] = owners().await;
        let queue = queue(false);
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| get(&queue, &ann)).collect();
        assert!(matches!(get(&queue, &ann).await.unwrap(), Err(Fault::Unavailable(_))));
        assert!(waiting.iter_mut().all(|answer| answer.try_recv().is_err()), "they still wait");

        queue.close();
        for answer in waiting {
            assert!(matches!(answer.await.unwrap(), Err(Fault::Unavailable(_))));
        }
        assert!(matches!(get(&queue, &ann).await.unwrap(), Err(Fault::Unavailable(_))));
        assert!(queue.take(0).await.is_none());
    }
}
