//! What is asked of the database, and how it is answered.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use poem_openapi::types::MaybeUndefined;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    changes::{Following, Told},
    idempotency::IdempotentRequest,
    turn::Turn,
};
use crate::{
    auth::Owner,
    problem::{Cause, Fault},
    task::{Description, ExpectedVersion, Task, TaskId, TaskStatus, Timestamp, Title},
};

/// One request to the database: whose rows it is about, what is to be done, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Asked<W, A> {
    pub(super) owner: Owner,
    pub(super) work: W,
    pub(super) since: Instant,
    /// Where it is noted when it has its turn, if it is.
    pub(super) turn: Option<Arc<Turn>>,
    reply: oneshot::Sender<Result<A, Fault>>,
}

pub(super) type Get = Asked<TaskId, Task>;
pub(super) type List = Asked<Listing, Listed>;
pub(super) type Follow = Asked<Following, Told>;
pub(super) type Create = Asked<Creation, Outcome>;
pub(super) type Change = Asked<Alteration, Outcome>;
pub(super) type Remove = Asked<Removal, ()>;

impl<W, A> Asked<W, A> {
    pub(super) fn new(owner: Owner, work: W) -> (Self, oneshot::Receiver<Result<A, Fault>>) {
        let (reply, answer) = oneshot::channel();
        let (since, turn) = (Instant::now(), Turn::of_this_task());
        if let Some(turn) = &turn {
            turn.ask(since);
        }
        (Self { owner, work, since, turn, reply }, answer)
    }

    /// Whether whoever asked has gone.
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Gives the answer that is made of what was asked.
    pub(super) fn finish(self, with: impl FnOnce(W) -> Result<A, Fault>) {
        let _ = self.reply.send(with(self.work));
    }

    /// Gives the answer. Whoever asked may have gone.
    pub(super) fn answer(self, answer: Result<A, Fault>) {
        let _ = self.reply.send(answer);
    }
}

/// Any of them.
#[derive(Debug)]
pub(super) enum Request {
    Get(Get),
    List(List),
    Changes(Follow),
    Create(Create),
    Change(Change),
    Remove(Remove),
}

/// The same of a request of any kind.
macro_rules! of_each {
    ($request:expr, $asked:ident => $what:expr) => {
        match $request {
            Request::Get($asked) => $what,
            Request::List($asked) => $what,
            Request::Changes($asked) => $what,
            Request::Create($asked) => $what,
            Request::Change($asked) => $what,
            Request::Remove($asked) => $what,
        }
    };
}

/// Of one kind are those that one statement can serve together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    ListAll,
    ListPending,
    ListCompleted,
    Changes,
    Create,
    Change,
    Remove,
    /// A single write that was left out of a set, because of somebody else's lock.
    Patient,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Get,
        Self::ListAll,
        Self::ListPending,
        Self::ListCompleted,
        Self::Changes,
        Self::Create,
        Self::Change,
        Self::Remove,
        Self::Patient,
    ];

    /// Whether requests of this kind change an owner's rows: one statement at a time does that.
    pub(super) fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Change | Self::Remove | Self::Patient)
    }
}

impl From<TaskStatus> for Kind {
    fn from(status: TaskStatus) -> Self {
        match status {
            TaskStatus::All => Self::ListAll,
            TaskStatus::Pending => Self::ListPending,
            TaskStatus::Completed => Self::ListCompleted,
        }
    }
}

impl Request {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Get(_) => Kind::Get,
            Self::List(list) => list.work.status.into(),
            Self::Changes(_) => Kind::Changes,
            Self::Create(_) => Kind::Create,
            Self::Change(_) => Kind::Change,
            Self::Remove(_) => Kind::Remove,
        }
    }

    pub(super) fn owner(&self) -> &Owner {
        of_each!(self, asked => &asked.owner)
    }

    pub(super) fn since(&self) -> Instant {
        of_each!(self, asked => asked.since)
    }

    /// Where it is noted when it has its turn, if it is.
    pub(super) fn turn(&self) -> Option<&Turn> {
        of_each!(self, asked => asked.turn.as_deref())
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        of_each!(self, asked => asked.is_abandoned())
    }

    /// How much it adds to what one statement gives back, in rows.
    pub(super) fn weight(&self) -> usize {
        match self {
            // Its page is known, and seldom another one.
            Self::List(list) if list.work.has_known_page() => 1,
            Self::List(list) => list.work.limit.into(),
            Self::Changes(follow) => follow.work.weight(),
            _ => 1,
        }
    }

    /// What no two requests of one set may be about: a statement changes a row once, and makes a key once.
    pub(super) fn subjects(&self) -> [Option<Subject>; 2] {
        let key = |once: &Option<IdempotentRequest>| once.as_ref().map(|once| Subject::Key(once.key().to_owned()));
        match self {
            Self::Get(_) | Self::List(_) | Self::Changes(_) => [None, None],
            Self::Create(create) => [key(&create.work.once), None],
            Self::Change(change) => [key(&change.work.once), Some(Subject::Task(change.work.id.0))],
            Self::Remove(remove) => [Some(Subject::Task(remove.work.id.0)), None],
        }
    }

    pub(super) fn once(&self) -> Option<&IdempotentRequest> {
        match self {
            Self::Create(create) => create.work.once.as_ref(),
            Self::Change(change) => change.work.once.as_ref(),
            Self::Get(_) | Self::List(_) | Self::Changes(_) | Self::Remove(_) => None,
        }
    }

    pub(super) fn as_get(&self) -> Option<&Get> {
        if let Self::Get(asked) = self { Some(asked) } else { None }
    }

    pub(super) fn as_list(&self) -> Option<&List> {
        if let Self::List(asked) = self { Some(asked) } else { None }
    }

    pub(super) fn as_follow(&self) -> Option<&Follow> {
        if let Self::Changes(asked) = self { Some(asked) } else { None }
    }

    pub(super) fn as_create(&self) -> Option<&Create> {
        if let Self::Create(asked) = self { Some(asked) } else { None }
    }

    pub(super) fn as_change(&self) -> Option<&Change> {
        if let Self::Change(asked) = self { Some(asked) } else { None }
    }

    pub(super) fn as_remove(&self) -> Option<&Remove> {
        if let Self::Remove(asked) = self { Some(asked) } else { None }
    }

    /// Answers that it failed.
    pub(super) fn fail(self, fault: Fault) {
        of_each!(self, asked => asked.answer(Err(fault)));
    }
}

/// What a request is about, beside its owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Task(Uuid),
    Key(String),
}

/// Which part of the owner's list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Listing {
    pub(super) status: TaskStatus,
    pub(super) after: Option<TaskId>,
    pub(super) limit: u16,
    /// The revision of the page that the caller has.
    pub(super) callers: Option<i64>,
    /// The revision of the page that is kept here.
    pub(super) kept: Option<i64>,
}

impl Listing {
    fn has_known_page(&self) -> bool {
        self.callers.is_some() || self.kept.is_some()
    }
}

/// A part of the owner's list, at a revision.
#[derive(Debug, Clone)]
pub enum Listed {
    /// The page that the request knows already, the caller's or the one that is kept, is still the same.
    Unchanged {
        /// The revision at which it is.
        revision: i64,
    },
    /// As it is now.
    Page(Page),
}

/// A page of tasks, written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The revision of the owner's tasks at which it was read. The same page at the same revision is the same.
    pub revision: i64,
    /// The tasks, newest first, as a JSON array.
    pub json: Bytes,
    /// The last task, if there are older ones.
    pub last: Option<TaskId>,
}

impl Page {
    /// Writes a page of at most `limit` of `tasks`; one more tells that there are older ones.
    pub(super) fn of(revision: i64, mut tasks: Vec<Task>, limit: u16) -> Self {
        let has_more = tasks.len() > usize::from(limit);
        tasks.truncate(limit.into());
        let last = tasks.last().map(|task| task.id).filter(|_| has_more);
        let json = serde_json::to_vec(&tasks).expect("a task is plain data");
        Self { revision, json: json.into(), last }
    }
}

/// A task to be made.
#[derive(Debug)]
pub(super) struct Creation {
    /// The task as it will be. Its owner is the request's.
    pub(super) task: Task,
    pub(super) once: Option<IdempotentRequest>,
}

/// A task to be changed.
#[derive(Debug)]
pub(super) struct Alteration {
    pub(super) id: TaskId,
    pub(super) title: Option<Title>,
    pub(super) description: MaybeUndefined<Description>,
    pub(super) completion: Completion,
    /// Whether it counts as a change though nothing may be different.
    pub(super) always: bool,
    pub(super) at: Timestamp,
    pub(super) expected: ExpectedVersion,
    pub(super) once: Option<IdempotentRequest>,
}

/// What becomes of the completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub(super) enum Completion {
    Keep = 0,
    Complete = 1,
    Reopen = 2,
    Flip = 3,
}

impl From<bool> for Completion {
    fn from(completed: bool) -> Self {
        if completed { Self::Complete } else { Self::Reopen }
    }
}

/// A task to be deleted.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) id: TaskId,
    pub(super) expected: ExpectedVersion,
    pub(super) at: Timestamp,
}

/// What a change came to.
#[derive(Debug)]
pub struct Outcome {
    /// The task, as it was when the request took effect.
    pub task: Task,
    /// Whether that was at an earlier time, when the request was sent before.
    pub is_replay: bool,
}

impl Outcome {
    pub(super) fn first(task: Task) -> Self {
        Self { task, is_replay: false }
    }

    /// The stored response of the first attempt, in JSON.
    pub(super) fn replay(json: &str) -> Result<Self, Fault> {
        let task = serde_json::from_str(json).map_err(Fault::defect)?;
        Ok(Self { task, is_replay: true })
    }
}

/// Whether these versions are meant by `expected`.
pub(super) fn is_expected(expected: &ExpectedVersion, version: i32) -> bool {
    match expected {
        ExpectedVersion::Any => true,
        ExpectedVersion::OneOf(versions) => versions.contains(&version),
    }
}

/// A fault for everybody whose request failed for `cause`.
pub(super) fn unavailable(cause: &Cause) -> Fault {
    Fault::Unavailable(Cause::clone(cause))
}

/// What has failed, if no error of the driver says so.
pub(super) fn cause(what: &'static str) -> Cause {
    Cause::from(Box::<dyn std::error::Error + Send + Sync>::from(what))
}
