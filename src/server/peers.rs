//! Who is connected, what each is waited for, and who has to go.
//!
//! A place is cheap and can be taken by whoever opens a connection, so nobody keeps one for nothing: a head has its deadline,
//! an idle connection its time, an answer its budget. When all places are taken, the next one is the place of whoever has kept
//! the server waiting longest, those first who owe it something. Only what is being served keeps its place. For liveness there
//! are a few places more.
//!
//! Answers that nobody takes are bounded, too: one at a time on a connection, which is hyper's way, and by their bytes for each
//! user and in all.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{sync::Notify, time};

use super::stream::LINGER;
use crate::{auth::Owner, config, request::Presence, telemetry::Label};

/// How often the deadlines are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Who owes something for less than this is only slow.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the peer may take nothing of its answer.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How fast it has to take an answer on the whole, in bytes a second.
const MIN_BYTES_PER_SEC: usize = 8 * 1024;
/// How many more connections are accepted for liveness when no place is left.
const SPARE_PLACES: usize = 16;
/// Smaller answers are not counted, in bytes: the system's own buffers take them.
const MIN_COUNTED_BYTES: usize = 16 * 1024;
/// What one user's answers may take of what is allowed in all.
const USER_SHARE: usize = 4;
/// How long an answer waits for room: long enough for those who take nothing to be found out.
const ROOM_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How often it looks.
const ROOM_PAUSE: Duration = Duration::from_millis(10);
/// After this time without another closed connection an episode is over.
const EPISODE_END: Duration = Duration::from_secs(10);

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Its peer has sent nothing yet.
    Fresh,
    /// It sends the head of a request.
    Head,
    /// It sends the body of the request that is being served.
    Body,
    /// It takes an answer.
    Answer,
    /// It may send another request.
    Idle,
    /// Us: its request is being served.
    Serving,
}

impl Phase {
    const ALL: [Self; 6] = [Self::Fresh, Self::Head, Self::Body, Self::Answer, Self::Idle, Self::Serving];

    fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Head => "head",
            Self::Body => "body",
            Self::Answer => "answer",
            Self::Idle => "idle",
            Self::Serving => "serving",
        }
    }
}

/// What a connection has been told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Order {
    /// To go on.
    None,
    /// To end when no request is being served on it.
    Retire,
    /// To answer 408, and end.
    Expire,
    /// To end at once.
    Close,
}

impl Order {
    const ALL: [Self; 4] = [Self::None, Self::Retire, Self::Expire, Self::Close];
}

/// A connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Whether it has a place for liveness only.
    pub(super) is_spare: bool,
    number: u64,
    origin: Instant,
    /// The phase, and since when, in microseconds: times eight.
    phase: AtomicU64,
    /// When it last took something of its answer, in microseconds.
    progress: AtomicU64,
    order: AtomicU8,
    told: Notify,
    /// The bytes of the answer that it is taking.
    answer: AtomicUsize,
    /// Whether it is there, for a request that waits.
    pub(super) presence: Presence,
}

impl Peer {
    fn now(&self) -> u64 {
        micros(self.origin.elapsed())
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(self.now() << 3 | phase as u64, Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        phase_of(self.phase.load(Relaxed))
    }

    /// Notes that something has come from the peer.
    pub(super) fn has_sent(&self) {
        if matches!(self.phase(), Phase::Fresh | Phase::Idle) {
            // It was for a head that has come to its end after all.
            let _ = self.order.compare_exchange(Order::Expire as u8, Order::None as u8, Relaxed, Relaxed);
            self.enter(Phase::Head);
        }
    }

    /// Whether the head that it sends takes too long.
    pub(super) fn is_expired(&self) -> bool {
        self.order() == Order::Expire && self.phase() == Phase::Head
    }

    /// Notes that its body is waited for, or has come.
    pub(super) fn awaits_body(&self, awaits: bool) {
        match self.phase() {
            Phase::Serving if awaits => self.enter(Phase::Body),
            Phase::Body if !awaits => self.enter(Phase::Serving),
            _ => {}
        }
    }

    /// Notes that it has taken something.
    pub(super) fn has_taken_some(&self) {
        if self.phase() == Phase::Answer {
            self.progress.store(self.now(), Relaxed);
        }
    }

    pub(super) fn order(&self) -> Order {
        Order::ALL[usize::from(self.order.load(Relaxed))]
    }

    /// Whether it is told something new.
    fn tell(&self, order: Order) -> bool {
        let before = self.order.fetch_max(order as u8, Relaxed);
        self.told.notify_one();
        before < order as u8
    }

    /// Waits until it is told something.
    pub(super) async fn told(&self) -> Order {
        self.told.notified().await;
        self.order()
    }

    /// Its phase, for how long it has been in it, and for how long it has taken nothing.
    fn look(&self) -> (Phase, Duration, Duration) {
        let (now, phase) = (self.now(), self.phase.load(Relaxed));
        let age = |since: u64| Duration::from_micros(now.saturating_sub(since));
        let since = phase >> 3;
        (phase_of(phase), age(since), age(since.max(self.progress.load(Relaxed))))
    }
}

/// Everybody who is connected.
#[derive(Debug)]
pub(super) struct Peers {
    origin: Instant,
    places: usize,
    head_timeout: Duration,
    idle_timeout: Duration,
    stall_timeout: Duration,
    max_untaken_bytes: usize,
    state: Mutex<State>,
    /// Somebody has left.
    left: Notify,
    is_draining: AtomicBool,
    connections: Family<Label, Gauge>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    all: HashMap<u64, Arc<Peer>>,
    /// How many of them have a place that is not for liveness only.
    regular: usize,
    /// The bytes of answers that are being taken: in all, and by whose data they are.
    untaken: usize,
    untaken_by: HashMap<Option<Owner>, usize>,
    /// The bytes of answers that wait for room.
    waiting: usize,
    /// Which connections hold how many of whose bytes.
    held: HashMap<u64, (Option<Owner>, usize)>,
    /// Since when connections have been closed for want of places or of memory, how many, and when the last one was.
    episode: Option<(Instant, usize)>,
    /// What for connections have been ended, or refused.
    closed: Family<Label, Counter>,
}

impl Peers {
    pub(super) fn new(server: &config::Server, places: usize) -> Self {
        Self {
            origin: Instant::now(),
            places,
            head_timeout: Duration::from_secs(server.head_timeout_secs.get()),
            idle_timeout: Duration::from_secs(server.idle_timeout_secs.get()),
            stall_timeout: STALL_TIMEOUT,
            max_untaken_bytes: server.max_untaken_mb.get::<usize>() * 1024 * 1024,
            state: Mutex::default(),
            left: Notify::new(),
            is_draining: AtomicBool::new(false),
            connections: Family::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics with it")
    }

    /// Gives a connection its place, for which somebody else may have to go. `None`: everybody is being served, also those who
    /// ask whether the server lives.
    pub(super) fn admit(&self, address: SocketAddr) -> Option<Arc<Peer>> {
        let mut state = self.state();
        let is_spare = state.regular >= self.places && !state.close_one(|peer| !peer.is_spare);
        let spare = state.all.len() - state.regular;
        if is_spare && spare >= SPARE_PLACES && !state.close_one(|peer| peer.is_spare) {
            state.count_closed("refused");
            return None;
        }
        let number = state.next;
        state.next += 1;
        let peer = Arc::new(Peer {
            address,
            is_spare,
            number,
            origin: self.origin,
            phase: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            order: AtomicU8::new(Order::None as u8),
            told: Notify::new(),
            answer: AtomicUsize::new(0),
            presence: Presence::default(),
        });
        peer.enter(Phase::Fresh);
        state.regular += usize::from(!is_spare);
        state.all.insert(number, Arc::clone(&peer));
        Some(peer)
    }

    /// Registers what is measured.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Connections, by what they wait for", self.connections.clone());
        let closed = self.state().closed.clone();
        registry.register("connections_closed", "Connections that were ended or refused, by what for", closed);
    }

    /// Looks at what is measured when somebody asks.
    pub(super) fn measure(&self) {
        let phases: Vec<Phase> = self.state().all.values().map(|peer| peer.phase()).collect();
        for phase in Phase::ALL {
            let count = phases.iter().filter(|one| **one == phase).count();
            self.connections.get_or_create(&[("phase", phase.name())]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Closes the connection that has kept the server waiting longest.
    pub(super) fn make_room(&self) {
        self.state().close_one(|_| true);
    }

    /// Takes a place back.
    pub(super) fn leave(&self, peer: &Peer) {
        self.state().remove(peer);
        self.left.notify_one();
    }

    /// Counts an answer of so many bytes that `peer` is about to be given, and that `user` has asked for. If there is no room for it,
    /// it waits a moment for others to take theirs, as far as there is room for those who wait. Whether there is.
    pub(super) async fn gives(&self, peer: &Peer, bytes: usize, user: Option<Owner>) -> bool {
        if self.counts(peer, bytes, user.clone()) {
            return true;
        }
        let Some(_waiting) = self.waits(bytes) else { return false };
        let begun = Instant::now();
        while begun.elapsed() < ROOM_TIMEOUT {
            time::sleep(ROOM_PAUSE).await;
            if self.counts(peer, bytes, user.clone()) {
                return true;
            }
        }
        false
    }

    /// Counts an answer that waits for room, until that is dropped.
    fn waits(&self, bytes: usize) -> Option<Waiting<'_>> {
        let mut state = self.state();
        let fits = state.waiting + bytes <= self.max_untaken_bytes;
        fits.then(|| {
            state.waiting += bytes;
            Waiting { peers: self, bytes }
        })
    }

    fn counts(&self, peer: &Peer, bytes: usize, user: Option<Owner>) -> bool {
        if bytes >= MIN_COUNTED_BYTES {
            let mut state = self.state();
            let share = if user.is_some() { self.max_untaken_bytes / USER_SHARE } else { self.max_untaken_bytes };
            // A single answer always fits.
            while state.untaken_by.get(&user).is_some_and(|taken| taken + bytes > share) {
                if !state.close_stalled(|whose| *whose == user) {
                    return false;
                }
            }
            while state.untaken > 0 && state.untaken + bytes > self.max_untaken_bytes {
                if !state.close_stalled(|_| true) {
                    return false;
                }
            }
            state.untaken += bytes;
            *state.untaken_by.entry(user.clone()).or_default() += bytes;
            state.held.insert(peer.number, (user, bytes));
        }
        peer.answer.store(bytes, Relaxed);
        peer.enter(Phase::Answer);
        true
    }

    /// Notes that everything that was to be written has been.
    pub(super) fn has_taken_all(&self, peer: &Peer) {
        if peer.phase() != Phase::Answer {
            return;
        }
        if peer.answer.swap(0, Relaxed) >= MIN_COUNTED_BYTES {
            self.state().release(peer);
        }
        peer.enter(Phase::Idle);
    }

    /// From now on every answer ends its connection.
    pub(super) fn drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }

    /// Waits until there are no connections. Those that are idle, or become it, end after `grace`: until then somebody's request may
    /// be on its way.
    pub(super) async fn end(&self, grace: Duration) {
        let begun = Instant::now();
        loop {
            let is_over = begun.elapsed() >= grace;
            {
                let state = self.state();
                if state.all.is_empty() {
                    return;
                }
                let idle = |peer: &&Arc<Peer>| matches!(peer.phase(), Phase::Fresh | Phase::Idle);
                for peer in state.all.values().filter(idle).filter(|peer| is_over && peer.order() == Order::None) {
                    let _ = peer.tell(Order::Retire);
                }
            }
            let _ = time::timeout(TICK / 5, self.left.notified()).await;
        }
    }

    /// Looks after the deadlines, for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            time::sleep(TICK).await;
            self.close_late();
        }
    }

    fn close_late(&self) {
        let mut state = self.state();
        for peer in state.all.values() {
            let (phase, age, without_progress) = peer.look();
            let (order, what_for) = match phase {
                Phase::Fresh if age > self.head_timeout => (Order::Close, "silent"),
                // If it does not take the refusal either.
                Phase::Head if age > self.head_timeout + 2 * LINGER => (Order::Close, ""),
                Phase::Head if age > self.head_timeout => (Order::Expire, "head"),
                Phase::Idle if age > self.idle_timeout => (Order::Retire, "idle"),
                Phase::Answer => {
                    let size = peer.answer.load(Relaxed);
                    let budget = self.stall_timeout + Duration::from_secs((size / MIN_BYTES_PER_SEC) as u64);
                    if without_progress <= self.stall_timeout && age <= budget {
                        continue;
                    }
                    tracing::info!("closed a connection whose peer did not take its answer");
                    (Order::Close, "answer")
                }
                _ => continue,
            };
            if peer.tell(order) && !what_for.is_empty() {
                state.count_closed(what_for);
            }
        }
        state.end_episode();
    }
}

/// An answer that waits for room.
struct Waiting<'p> {
    peers: &'p Peers,
    bytes: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.peers.state().waiting -= self.bytes;
    }
}

fn phase_of(packed: u64) -> Phase {
    Phase::ALL[usize::try_from(packed & 7).expect("it has three bits")]
}

/// A number of microseconds; half a million years of them.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX) & (u64::MAX >> 3)
}

impl State {
    /// Closes the connection, of those that are meant, that has kept the server waiting longest. Whether there was one.
    fn close_one(&mut self, is_meant: impl Fn(&Peer) -> bool) -> bool {
        // By how soon they have to go: who owes something, and has for some time; who is idle; who has just begun.
        let rank = |peer: &Arc<Peer>| {
            let (phase, age, without_progress) = peer.look();
            let of = |owing| (if owing > PATIENCE { 2 } else { 0 }, owing);
            let rank = match phase {
                Phase::Serving => None,
                Phase::Idle => Some((1, age)),
                Phase::Answer => Some(of(without_progress)),
                Phase::Fresh | Phase::Head | Phase::Body => Some(of(age)),
            };
            rank.map(|rank| (rank, Arc::clone(peer)))
        };
        let ranked = self.all.values().filter(|peer| is_meant(peer)).filter_map(rank);
        let chosen = ranked.max_by_key(|(rank, _)| *rank).map(|(_, peer)| peer);
        let Some(peer) = chosen else { return false };
        // Its place is free from now on, whenever its task gets to it.
        self.remove(&peer);
        if peer.tell(Order::Close) {
            self.count_closed("room");
        }
        if let Some((last, count)) = &mut self.episode {
            (*last, *count) = (Instant::now(), *count + 1);
        } else {
            self.episode = Some((Instant::now(), 1));
            tracing::warn!(
                "places or memory run short: connections that keep the server waiting are closed, the longest first \
                 (`server.max_connections`, `server.max_untaken_mb`)"
            );
        }
        true
    }

    /// As [`close_one`](Self::close_one), of those who have not taken anything of an answer with such data for some time.
    fn close_stalled(&mut self, is_meant: impl Fn(&Option<Owner>) -> bool) -> bool {
        let held: Vec<u64> =
            self.held.iter().filter(|(_, (whose, _))| is_meant(whose)).map(|(peer, _)| *peer).collect();
        self.close_one(|peer| held.contains(&peer.number) && peer.look().2 > PATIENCE)
    }

    fn remove(&mut self, peer: &Peer) {
        self.release(peer);
        if self.all.remove(&peer.number).is_some_and(|peer| !peer.is_spare) {
            self.regular -= 1;
        }
    }

    /// Takes back what its answer was counted as.
    fn release(&mut self, peer: &Peer) {
        let Some((user, bytes)) = self.held.remove(&peer.number) else { return };
        self.untaken -= bytes;
        if let Some(taken) = self.untaken_by.get_mut(&user) {
            *taken -= bytes;
            if *taken == 0 {
                self.untaken_by.remove(&user);
            }
        }
    }

    fn count_closed(&self, what_for: &'static str) {
        self.closed.get_or_create(&[("for", what_for)]).inc();
    }

    fn end_episode(&mut self) {
        if let Some((last, count)) = self.episode
            && last.elapsed() > EPISODE_END
        {
            tracing::info!(closed = count, "places and memory suffice again");
            self.episode = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use futures_util::FutureExt;

    use super::*;
    use crate::auth::{Verifier, token};

    const MB: usize = 1024 * 1024;

    fn peers(places: usize) -> Peers {
        let max_untaken_mb = serde_json::from_value(8.into()).unwrap();
        let mut peers = Peers::new(&config::Server { max_untaken_mb, ..Default::default() }, places);
        peers.stall_timeout = Duration::from_millis(300);
        peers
    }

    fn owners<const N: usize>() -> [Option<Owner>; N] {
        let mut auth = config::Config::default().auth;
        auth.secret = Some("a secret that nobody else knows of".to_owned().into());
        let verifier = Verifier::new(&auth).now_or_never().unwrap().unwrap();
        std::array::from_fn(|n| {
            let token = token::mint(&auth, &format!("user-{n}"), Duration::from_mins(1)).unwrap();
            Some(verifier.verify(&token).now_or_never().unwrap().unwrap())
        })
    }

    fn admit(peers: &Peers) -> Arc<Peer> {
        peers.admit(([127, 0, 0, 1], 1).into()).unwrap()
    }

    #[test]
    fn who_takes_nothing_is_closed_and_who_takes_a_little_has_a_budget() {
        let peers = peers(10);
        let [stalled, slow, quick] = [(); 3].map(|()| admit(&peers));
        for peer in [&stalled, &slow, &quick] {
            assert!(peers.counts(peer, 1, None));
        }
        peers.has_taken_all(&quick);
        for _ in 0..4 {
            sleep(Duration::from_millis(100));
            slow.has_taken_some();
        }
        peers.close_late();
        // A byte now and then is progress, but not for ever.
        assert_eq!([&stalled, &slow, &quick].map(|peer| peer.order()), [Order::Close, Order::Close, Order::None]);

        let large = admit(&peers);
        assert!(peers.counts(&large, MB, None));
        for _ in 0..4 {
            sleep(Duration::from_millis(100));
            large.has_taken_some();
        }
        peers.close_late();
        assert_eq!(large.order(), Order::None, "it has two minutes for a megabyte");
    }

    #[test]
    fn answers_are_counted_until_they_are_taken_or_their_peer_has_left() {
        let peers = peers(10);
        let all: Vec<_> = (0..6).map(|_| admit(&peers)).collect();
        let [ann, bob, carl] = owners();
        // A user's share is 2 MB, but a single answer always fits.
        assert!(peers.counts(&all[0], 3 * MB, ann.clone()));
        assert!(!peers.counts(&all[1], MB, ann.clone()), "nobody has had time to take it");
        assert!(peers.counts(&all[1], MIN_COUNTED_BYTES - 1, ann.clone()), "a small one is not counted");
        assert!(peers.counts(&all[2], 2 * MB, bob.clone()));
        assert!(peers.counts(&all[3], 3 * MB, None));
        assert!(!peers.counts(&all[4], MB, carl.clone()), "8 MB in all");
        peers.has_taken_all(&all[0]);
        assert!(peers.counts(&all[4], MB, carl.clone()));
        peers.leave(&all[2]);
        assert!(peers.counts(&all[5], MB, bob.clone()));
        for peer in &all {
            peers.has_taken_all(peer);
            peers.leave(peer);
        }
        let state = peers.state();
        assert_eq!((state.untaken, state.untaken_by.len(), state.held.len()), (0, 0, 0));
        assert_eq!((state.regular, state.all.len()), (0, 0));
    }

    #[test]
    fn places_for_liveness_are_few_and_go_round() {
        let peers = peers(2);
        let busy = [(); 2].map(|()| admit(&peers));
        for peer in &busy {
            peer.enter(Phase::Serving);
        }
        let mut spare = vec![admit(&peers)];
        sleep(Duration::from_millis(2));
        spare.extend((0..SPARE_PLACES).map(|_| admit(&peers)));
        assert!(spare.iter().all(|peer| peer.is_spare));
        assert_eq!(spare[0].order(), Order::Close, "the first of them has gone for the last");
        assert!(busy.iter().chain(&spare[1..]).all(|peer| peer.order() == Order::None));
        for peer in &spare {
            peer.enter(Phase::Serving);
        }
        assert!(peers.admit(([127, 0, 0, 1], 1).into()).is_none(), "everybody is being served");
        busy[0].enter(Phase::Idle);
        assert!(!admit(&peers).is_spare);
        assert_eq!(busy[0].order(), Order::Close);
    }
}
