//! Natural batching: what arrives while the database is busy travels together in the next statement.
//!
//! Requests wait in lines, a line for each kind and in it a queue for each owner. The lanes, of which each has a connection,
//! take sets from them: one that finds requests takes what is there, and what is being read from sockets just then. Nobody
//! waits for somebody who has sent nothing yet. A request that meets no other goes alone and at once; where the database is
//! near ([`NEAR`]), one that comes while a set is under way waits for that, but not for long ([`PROMPT`]).
//!
//! What it guarantees: a set holds requests of one kind. Owners take turns, request by request, so that nobody gets ahead by
//! asking more. While a set that writes is under way, no other has requests of the same owners: one server's writes for
//! one owner are in the order in which they are taken, and never wait for each other in the database.
//!
//! Where owners are on different machines (`places.rs`), the sets for one machine hold half of the lanes of each sort at most: one
//! that hangs keeps nobody else's owners waiting, however many of its own ask.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::yield_now, time::timeout};

use super::{
    measured::Measured,
    places::Places,
    request::{Kind, Request, Subject, cause},
};
use crate::{auth::Owner, problem::Fault};

/// The most requests that one set has.
const MAX_SET: usize = 64;
/// The most rows that the requests of one set may ask for, beside the first one's.
const MAX_ROWS: usize = 1024;
/// How often a lane looks whether more has been read from the sockets, as long as there is more each time. Those who were answered
/// by the set before ask again just then.
const MAX_LOOKS: usize = 8;
/// A database whose quickest sets take less is near: what they take is processor time, and several beside each other take more of it
/// than one large one. So requests wait for the set of their sort (reads or writes) that is under way, or until they fill one.
const NEAR: Duration = Duration::from_millis(5);
/// They do not wait longer than that: what is under way may hang.
pub(super) const PROMPT: Duration = Duration::from_millis(50);
/// The most requests that wait. What comes then is refused.
const MAX_WAITING: usize = 10_000;

/// The kinds of requests that a lane takes, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// What sets are made of, and when.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Policy {
    /// Whether a set has requests of one owner only.
    pub(super) single_owner: bool,
    /// How long requests wait for a set of their sort that is under way, so that sets are large; if at all.
    pub(super) waits: Option<Duration>,
}

/// The requests that wait, and the lanes that serve them.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    lanes: Vec<Lane>,
    policy: Policy,
    /// How long a request waits for its turn.
    patience: Duration,
    pub(super) measured: Measured,
}

#[derive(Debug)]
struct Lane {
    roles: Roles,
    work: Notify,
}

#[derive(Debug, Default)]
struct LaneState {
    activity: Activity,
    /// The kind whose turn it is.
    turn: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Activity {
    /// Has something else to do.
    #[default]
    Away,
    /// Is about to take what waits.
    Looks,
    /// Waits for work.
    Idle,
    /// Waits for others to serve what is there, and looks again soon.
    Watches,
    /// Serves a set.
    Serves { since: Instant, kind: Kind },
}

#[derive(Debug, Default)]
struct State {
    lines: [Line; Kind::ALL.len()],
    /// The owners of whom writes are under way.
    writing: HashSet<Owner>,
    places: Places,
    /// How many sets are under way for each machine, by the sort of the lanes that serve them.
    under_way: HashMap<(Roles, i32), usize>,
    lanes: Vec<LaneState>,
    /// How long the quickest of the last sets took, of those that read and of those that write.
    quickest: [Duration; 2],
    is_closed: bool,
}

/// The requests of one kind.
#[derive(Debug, Default)]
struct Line {
    requests: HashMap<Owner, VecDeque<Request>>,
    /// The owners who have any, in turn.
    turns: VecDeque<Owner>,
    /// How many requests there are, and how many rows they may ask for.
    count: usize,
    rows: usize,
}

/// A set of requests that a lane has taken. When it is dropped, its owners' next ones can be taken.
#[derive(Debug)]
pub(super) struct Taken {
    queue: Arc<Queue>,
    pub(super) kind: Kind,
    pub(super) requests: Vec<Request>,
    writers: Vec<Owner>,
    /// The sort of the lane that has it, and the machine that it is for.
    place: Option<(Roles, i32)>,
    since: Instant,
    lane: usize,
    /// Whether the database was asked.
    asked: bool,
}

impl Queue {
    pub(super) fn new(lanes: impl IntoIterator<Item = Roles>, policy: Policy, patience: Duration) -> Arc<Self> {
        let lanes: Vec<_> = lanes.into_iter().map(|roles| Lane { roles, work: Notify::new() }).collect();
        let states = lanes.iter().map(|_| LaneState::default()).collect();
        let state = Mutex::new(State { lanes: states, ..State::default() });
        Arc::new(Self { state, lanes, policy, patience, measured: Measured::default() })
    }

    /// Says on which machines the owners are.
    pub(super) fn set_places(&self, places: Places) {
        self.state().places = places;
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting(|_| true)
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
        if state.is_closed || state.waiting(|_| true) >= MAX_WAITING {
            drop(state);
            return request.fail(super::closed());
        }
        state.enqueue(kind, request);
        self.wake(&mut state, kind);
    }

    /// Wakes the first idle lane that takes this kind: to serve, or to watch those that serve. It need not if one is about to look.
    fn wake(&self, state: &mut State, kind: Kind) {
        let find = |state: &State, activities: &[Activity]| {
            let mut lanes = self.lanes.iter().zip(&state.lanes);
            lanes.position(|(lane, state)| lane.roles.has(kind) && activities.contains(&state.activity))
        };
        if find(state, &[Activity::Looks]).is_some() {
            return;
        }
        let found = if self.is_worth_a_set(state, kind) {
            find(state, &[Activity::Idle, Activity::Watches])
        } else if find(state, &[Activity::Watches]).is_none() {
            find(state, &[Activity::Idle])
        } else {
            None
        };
        if let Some(at) = found {
            state.lanes[at].activity = Activity::Looks;
            self.lanes[at].work.notify_one();
        }
    }

    /// Wakes lanes for those of these kinds of which there are requests.
    fn wake_for(&self, state: &mut State, kinds: impl Fn(Kind) -> bool) {
        for kind in Kind::ALL.into_iter().filter(|kind| kinds(*kind)) {
            if state.lines[kind as usize].count > 0 {
                self.wake(state, kind);
            }
        }
    }

    /// Whether what waits of this kind is to have a set of its own, beside those that are under way.
    fn is_worth_a_set(&self, state: &State, kind: Kind) -> bool {
        let Some(limit) = self.policy.waits.filter(|_| kind != Kind::Patient) else { return true };
        let sort = |other: Kind| other != Kind::Patient && other.writes() == kind.writes();
        let is_under_way = |lane: &LaneState| match lane.activity {
            Activity::Serves { since, kind } => sort(kind) && since.elapsed() < limit,
            _ => false,
        };
        let Line { requests, turns, .. } = &state.lines[kind as usize];
        let first = turns.front().and_then(|owner| requests.get(owner)?.front());
        state.quickest[usize::from(kind.writes())] >= NEAR
            || !state.lanes.iter().any(is_under_way)
            || state.waiting(sort) >= MAX_SET
            || state.rows(sort) >= MAX_ROWS / 2
            || first.is_some_and(|first| first.since().elapsed() >= limit)
    }

    /// The next set for this lane. Waits for one; there is none any more when the queue has been closed.
    pub(super) async fn take(self: &Arc<Self>, lane: usize) -> Option<Taken> {
        let Lane { roles, work } = &self.lanes[lane];
        loop {
            self.state().lanes[lane].activity = Activity::Looks;
            self.gather(*roles).await;
            let watches = {
                let mut state = self.state();
                if let Some(taken) = self.pick(&mut state, lane) {
                    return Some(taken);
                }
                if state.is_closed {
                    return None;
                }
                let watches = state.waiting(|kind| roles.has(kind)) > 0;
                state.lanes[lane].activity = if watches { Activity::Watches } else { Activity::Idle };
                watches
            };
            if watches {
                // Whether it was woken makes no difference.
                let _ = timeout(self.policy.waits.unwrap_or(PROMPT), work.notified()).await;
            } else {
                work.notified().await;
            }
        }
    }

    /// Lets whoever is just being read from a socket come along.
    async fn gather(&self, roles: Roles) {
        let mut before = 0;
        for _ in 0..MAX_LOOKS {
            yield_now().await;
            let now = self.state().waiting(|kind| roles.has(kind));
            if now == before || now >= MAX_SET {
                return;
            }
            before = now;
        }
    }

    /// The next set for this lane, if there is one now.
    pub(super) fn try_take(self: &Arc<Self>, lane: usize) -> Option<Taken> {
        self.pick(&mut self.state(), lane)
    }

    fn pick(self: &Arc<Self>, state: &mut State, lane: usize) -> Option<Taken> {
        let roles = self.lanes[lane].roles;
        let kinds = Kind::ALL.len();
        let turn = state.lanes[lane].turn;
        let (kind, requests) = (0..kinds)
            .map(|step| Kind::ALL[(turn + step) % kinds])
            .filter(|kind| roles.has(*kind))
            .find_map(|kind| {
                let set = if self.is_worth_a_set(state, kind) { self.set(state, kind, roles) } else { None };
                set.map(|set| (kind, set))
            })?;
        let since = self.measured.taken(kind, &requests);
        state.lanes[lane] = LaneState { activity: Activity::Serves { since, kind }, turn: (kind as usize + 1) % kinds };
        let mut writers: Vec<Owner> = Vec::new();
        if kind.writes() {
            for request in &requests {
                if state.writing.insert(request.owner().clone()) {
                    writers.push(request.owner().clone());
                }
            }
        }
        let machine =
            requests.first().filter(|_| self.policy.single_owner).and_then(|first| state.places.of(first.owner().id()));
        let place = machine.map(|machine| (roles, machine));
        if let Some(place) = place {
            *state.under_way.entry(place).or_default() += 1;
        }
        // What this one has left is for another lane.
        self.wake_for(state, |kind| roles.has(kind));
        Some(Taken { queue: Arc::clone(self), kind, requests, writers, place, since, lane, asked: true })
    }

    /// A set of this kind, if there are requests that may be served now.
    fn set(&self, state: &mut State, kind: Kind, roles: Roles) -> Option<Vec<Request>> {
        let State { lines, writing, places, under_way, .. } = state;
        // Half of the lanes of this sort.
        let share =
            (!under_way.is_empty()).then(|| self.lanes.iter().filter(|lane| lane.roles == roles).count().div_ceil(2));
        let Line { requests, turns, count, rows: all_rows } = &mut lines[kind as usize];
        let is_single = kind == Kind::Patient;
        let (mut set, mut rows) = (Vec::new(), 0);
        let mut subjects: HashSet<(Owner, Subject)> = HashSet::new();
        let mut passed_over = Vec::new();
        while set.len() < if is_single { 1 } else { MAX_SET }
            && let Some(owner) = turns.pop_front()
        {
            let is_busy = kind.writes() && writing.contains(&owner);
            let is_other =
                self.policy.single_owner && set.first().is_some_and(|first: &Request| *first.owner() != owner);
            let queue = requests.get_mut(&owner).expect("who has a turn has a request");
            let is_crowded = share.is_some_and(|share| {
                let sets = places.of(owner.id()).and_then(|machine| under_way.get(&(roles, machine)));
                sets.is_some_and(|sets| *sets >= share)
            });
            if is_crowded {
                // They are not to take the room of others who wait, for as long as the machine hangs.
                while let Some(late) = queue.pop_front_if(|request| self.is_late(request)) {
                    *count -= 1;
                    *all_rows -= late.weight();
                    late.fail(Fault::Unavailable(cause("too many requests wait for this part of the database")));
                }
                if queue.is_empty() {
                    requests.remove(&owner);
                } else {
                    passed_over.push(owner);
                }
                continue;
            }
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
            *count -= 1;
            *all_rows -= next.weight();
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

    /// Whether nobody waits for it any more, or it has waited for as long as it may.
    fn is_late(&self, request: &Request) -> bool {
        request.is_abandoned() || request.since().elapsed() > self.patience
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
        let lines = std::mem::take(&mut state.lines);
        let left: Vec<Request> =
            lines.into_iter().flat_map(|line| line.requests).flat_map(|(_, requests)| requests).collect();
        drop(state);
        for request in left {
            request.fail(super::closed());
        }
        for lane in &self.lanes {
            lane.work.notify_one();
        }
    }
}

impl State {
    /// How many requests of these kinds wait.
    fn waiting(&self, kinds: impl Fn(Kind) -> bool) -> usize {
        Kind::ALL.into_iter().filter(|kind| kinds(*kind)).map(|kind| self.lines[kind as usize].count).sum()
    }

    /// How many rows they may ask for.
    fn rows(&self, kinds: impl Fn(Kind) -> bool) -> usize {
        Kind::ALL.into_iter().filter(|kind| kinds(*kind)).map(|kind| self.lines[kind as usize].rows).sum()
    }

    /// A slower set counts a little, so that what was quick once is forgotten.
    fn note(&mut self, kind: Kind, took: Duration) {
        let quickest = &mut self.quickest[usize::from(kind.writes())];
        *quickest = took.min(*quickest + *quickest / 16 + Duration::from_micros(10));
    }

    fn enqueue(&mut self, kind: Kind, request: Request) {
        let Line { requests, turns, count, rows } = &mut self.lines[kind as usize];
        *count += 1;
        *rows += request.weight();
        let owner = request.owner();
        if let Some(queue) = requests.get_mut(owner) {
            queue.push_back(request);
        } else {
            turns.push_back(owner.clone());
            requests.insert(owner.clone(), VecDeque::from([request]));
        }
    }
}

impl Taken {
    /// Says that nobody waited for it any more, so that the database was not asked.
    pub(super) fn asks_nothing(&mut self) {
        self.asked = false;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.queue.measured.done(self.kind, self.since);
        let mut state = self.queue.state();
        state.lanes[self.lane].activity = Activity::Away;
        if self.asked {
            state.note(self.kind, self.since.elapsed());
        }
        if let Some(place) = self.place
            && let Entry::Occupied(mut sets) = state.under_way.entry(place)
        {
            *sets.get_mut() -= 1;
            if *sets.get() == 0 {
                sets.remove();
            }
        }
        let has_written = !self.writers.is_empty();
        for owner in self.writers.drain(..) {
            state.writing.remove(&owner);
        }
        // Somebody who waits for another sort of lane may have waited for these owners. The lane itself looks again anyway.
        let roles = self.queue.lanes[self.lane].roles;
        self.queue.wake_for(&mut state, |kind| has_written && kind.writes() && !roles.has(kind));
    }
}

#[cfg(test)]
mod tests {
    use poem_openapi::types::MaybeUndefined;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        auth::{Verifier, token},
        clock::Clock,
        config,
        problem::Fault,
        store::request::{Alteration, Asked, Completion, Listing, Outcome, Removal},
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
        Queue::new([Roles::of(|_| true)], Policy { single_owner, waits: None }, Duration::from_secs(3))
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

    fn remove(queue: &Queue, owner: &Owner) -> oneshot::Receiver<Result<(), Fault>> {
        let removal = Removal { id: Clock.new_task_id(), at: Clock.now(), expected: ExpectedVersion::Any };
        let (asked, answer) = Asked::new(owner.clone(), removal);
        queue.push(Request::Remove(asked));
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
    async fn each_lane_gives_each_kind_its_turn() {
        let [ann, bob] = owners().await;
        let roles = [Roles::of(|kind| !kind.writes()), Roles::of(Kind::writes)];
        let queue = Queue::new(roles, Policy::default(), Duration::from_secs(3));
        let (mut answers, mut kinds) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            answers.push(get(&queue, &ann));
            drop(queue.try_take(0).unwrap());
            let (_changed, _deleted) = (toggle(&queue, &ann, Clock.new_task_id()), remove(&queue, &bob));
            kinds.push(queue.try_take(1).unwrap().kind);
        }
        assert_eq!(
            kinds,
            [Kind::Change, Kind::Remove, Kind::Change, Kind::Remove],
            "whatever others have read meanwhile"
        );
    }

    #[tokio::test]
    async fn beside_a_set_under_way_only_a_full_one_is_taken_from_a_database_that_is_near() {
        let [ann, bob] = owners().await;
        let limit = Duration::from_millis(500);
        let policy = Policy { waits: Some(limit), ..Policy::default() };
        let queue = Queue::new([Roles::of(|_| true); 3], policy, Duration::from_secs(3));
        let mut answers = vec![get(&queue, &ann)];
        let first = queue.try_take(0).unwrap();
        answers.push(get(&queue, &ann));
        assert!(queue.try_take(1).is_none(), "it waits for the first");
        let _change = toggle(&queue, &ann, Clock.new_task_id());
        assert_eq!(queue.try_take(1).expect("writes don't wait for reads").kind, Kind::Change);
        queue.hand_over(Request::Get(Asked::new(ann.clone(), Clock.new_task_id()).0));
        let patient = queue.try_take(1).expect("who waits for a lock waits for nothing else");
        let _change = toggle(&queue, &bob, Clock.new_task_id());
        assert_eq!(queue.try_take(2).expect("nobody waits for who waits for a lock").kind, Kind::Change);
        drop(patient);

        answers.extend((1..MAX_SET).map(|_| get(&queue, &ann)));
        let full = queue.try_take(1).unwrap();
        assert_eq!(full.requests.len(), MAX_SET);
        let listing = Listing { status: TaskStatus::All, after: None, limit: 512, callers: None, kept: None };
        queue.push(Request::List(Asked::new(ann.clone(), listing).0));
        assert!(queue.try_take(2).is_some(), "many rows are a full set, too");

        answers.push(get(&queue, &ann));
        assert!(queue.try_take(2).is_none(), "it waits for the others");
        tokio::time::sleep(limit).await;
        assert!(queue.try_take(2).is_some(), "they may hang");

        drop((first, full));
        answers.extend([get(&queue, &ann), get(&queue, &ann)]);
        for _ in 0..100 {
            queue.state().note(Kind::Get, NEAR);
        }
        let mut hung_up = queue.try_take(0).unwrap();
        hung_up.asks_nothing();
        drop(hung_up);
        answers.push(get(&queue, &ann));
        let _first = queue.try_take(0).unwrap();
        answers.push(get(&queue, &ann));
        assert!(
            queue.try_take(1).is_some(),
            "a database that is far away takes as long for two beside each other as for one"
        );
    }

    #[tokio::test]
    async fn nobody_waits_longer_for_one_quick_set_after_the_other() {
        let [ann] = owners().await;
        let limit = Duration::from_millis(500);
        let policy = Policy { waits: Some(limit), ..Policy::default() };
        let roles = [Roles::of(|kind| kind == Kind::Get), Roles::of(|kind| kind == Kind::ListAll)];
        let queue = Queue::new(roles, policy, Duration::from_secs(3));
        let mut answers = vec![get(&queue, &ann)];
        let first = queue.try_take(0).unwrap();
        let listing = Listing { status: TaskStatus::All, after: None, limit: 20, callers: None, kept: None };
        queue.push(Request::List(Asked::new(ann.clone(), listing).0));
        assert!(queue.try_take(1).is_none(), "it waits for the first");
        tokio::time::sleep(limit).await;
        drop(first);
        answers.push(get(&queue, &ann));
        let _second = queue.try_take(0).unwrap();
        assert!(queue.try_take(1).is_some(), "it has waited long enough");
    }

    #[tokio::test]
    async fn who_waits_for_a_set_that_hangs_is_served_soon() {
        let [ann] = owners().await;
        let limit = Duration::from_millis(500);
        let policy = Policy { waits: Some(limit), ..Policy::default() };
        let queue = Queue::new([Roles::of(|_| true); 2], policy, Duration::from_secs(3));
        let other = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.take(1).await.map(|taken| taken.requests.len()) }
        });
        tokio::task::yield_now().await;
        let mut answers = vec![get(&queue, &ann)];
        let hangs = queue.try_take(0).unwrap();
        answers.push(get(&queue, &ann));
        assert_eq!(timeout(limit * 10, other).await.expect("nobody else asks").unwrap(), Some(1));
        drop(hangs);
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

    #[tokio::test]
    async fn one_machine_has_half_of_the_lanes_and_what_waits_for_it_too_long_is_refused() {
        // Which of two machines an owner is on is tried in `places.rs`.
        let (mut near, mut far) = (Vec::new(), Vec::new());
        let places = || Places::new(vec![(-1, 1), (i32::MAX, 2)]);
        for owner in owners::<20>().await {
            let is_near = places().of(owner.id()) == Some(1);
            if is_near { &mut near } else { &mut far }.push(owner);
        }
        let queue =
            Queue::new([Roles::of(|_| true); 4], Policy { single_owner: true, waits: None }, Duration::from_millis(50));
        queue.set_places(places());
        let mut waiting: Vec<_> = near[..4].iter().map(|owner| get(&queue, owner)).collect();
        let [first, second] = [0, 1].map(|lane| queue.try_take(lane).unwrap());
        assert!(queue.try_take(2).is_none(), "that would be more than half");
        let _answers: Vec<_> = far[..3].iter().map(|owner| get(&queue, owner)).collect();
        let others = [2, 3].map(|lane| queue.try_take(lane).unwrap());
        assert!(others.iter().all(|taken| places().of(of(taken)[0]) == Some(2)));
        drop(others);

        drop(first);
        let third = queue.try_take(0).unwrap();
        assert_eq!(of(&third), [near[2].id()]);
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(queue.try_take(1).is_none_or(|taken| places().of(of(&taken)[0]) == Some(2)));
        assert!(matches!(waiting.pop().unwrap().try_recv(), Ok(Err(Fault::Unavailable(_)))));
        drop((second, third));
        let _answer = get(&queue, &near[3]);
        assert_eq!(of(&queue.try_take(0).unwrap()), [near[3].id()], "as if nothing had been");
    }
}
