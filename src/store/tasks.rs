//! One owner's tasks.

use poem_openapi::types::MaybeUndefined;

use super::{
    IdempotentRequest, Outcome, Store,
    changes::{Following, Told},
    pages::PageKey,
    request::{Alteration, Asked, Completion, Creation, Listed, Removal, Request},
};
use crate::{
    auth::Owner,
    changes::{Changes, Since},
    problem::Fault,
    task::{ExpectedVersion, NewTask, Task, TaskCompletion, TaskId, TaskStatus, TaskUpdate},
};

/// One owner's tasks: the only way to them from outside the store.
///
/// Each operation is a request to the database that names the owner; what is asked at the same time, by whomever, may travel
/// in one statement with it.
#[derive(Debug)]
pub struct Tasks<'s> {
    pub(super) store: &'s Store,
    pub(super) owner: &'s Owner,
}

impl Tasks<'_> {
    /// The owner's tasks after `after`, newest first, at most `limit`, with the revision at which they were read; or only that,
    /// if `known` is the revision of the same page and it is still the same.
    ///
    /// A reader who follows the pages to the end meets every task that existed throughout exactly once, also while
    /// others come and go. An unknown `after` is no error: the page starts where it would have been.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] if the database did not answer.
    pub async fn list(
        &self,
        status: TaskStatus,
        after: Option<TaskId>,
        limit: u16,
        known: Option<i64>,
    ) -> Result<Listed, Fault> {
        let key = PageKey::new(self.owner, status, after, limit);
        let kept = self.store.pages.get(&key);
        let listing = key.listing(known, kept.as_ref().map(|page| page.revision));
        let listed = self.store.ask(self.owner, listing, Request::List, |_| true).await?;
        match (listed, kept) {
            (Listed::Unchanged { revision }, _) if known == Some(revision) => Ok(Listed::Unchanged { revision }),
            (Listed::Unchanged { .. }, Some(page)) => Ok(Listed::Page(page)),
            (Listed::Unchanged { .. }, None) => Err(Fault::defect("a page is unchanged that nobody knows")),
            (Listed::Page(page), _) => {
                self.store.pages.keep(key, &page);
                Ok(Listed::Page(page))
            }
        }
    }

    /// Creates a task, once if that is wanted.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] if the database did not answer; with `once`, also those of a key: [`Fault::KeyReused`] if it came
    /// with another request, [`Fault::KeyInUse`] if another server is serving it.
    pub async fn create(&self, new: NewTask, once: Option<IdempotentRequest>) -> Result<Outcome, Fault> {
        let now = self.store.clock.now();
        let NewTask { title, description, completed } = new;
        let completed = completed.unwrap_or_default();
        let task = Task {
            id: self.store.clock.new_task_id(),
            user_id: self.owner.id().to_owned(),
            title,
            description,
            completed,
            completed_at: completed.then_some(now),
            created_at: now,
            updated_at: now,
            version: 1,
        };
        self.store.ask(self.owner, Creation { task, once }, Request::Create, |outcome| !outcome.is_replay).await
    }

    /// One task.
    ///
    /// # Errors
    /// [`Fault::NoSuchTask`] if this owner has no task `id`; [`Fault::Unavailable`] if the database did not answer.
    pub async fn get(&self, id: TaskId) -> Result<Task, Fault> {
        self.store.ask(self.owner, id, Request::Get, |_| true).await
    }

    /// Changes what `update` names and leaves the rest as it is.
    ///
    /// # Errors
    /// [`Fault::NoSuchTask`] if this owner has no task `id`; [`Fault::VersionMismatch`] if it is not of the `expected`
    /// version; [`Fault::Unavailable`] if the database did not answer.
    pub async fn update(&self, id: TaskId, update: TaskUpdate, expected: ExpectedVersion) -> Result<Task, Fault> {
        let TaskUpdate { title, description, completed } = update;
        let alteration = Alteration {
            id,
            title,
            description,
            completion: completed.map_or(Completion::Keep, Completion::from),
            always: true,
            at: self.store.clock.now(),
            expected,
            once: None,
        };
        Ok(self.store.ask(self.owner, alteration, Request::Change, |_| true).await?.task)
    }

    /// Flips whether the task is completed, or makes it so as `completion` says, once if that is wanted. If it is so
    /// already, nothing changes, the version included.
    ///
    /// # Errors
    /// [`Fault::NoSuchTask`] if this owner has no task `id`; [`Fault::VersionMismatch`] if it is not of the `expected`
    /// version; [`Fault::Unavailable`] if the database did not answer; with `once`, also those of a key.
    pub async fn toggle(
        &self,
        id: TaskId,
        completion: TaskCompletion,
        expected: ExpectedVersion,
        once: Option<IdempotentRequest>,
    ) -> Result<Outcome, Fault> {
        let alteration = Alteration {
            id,
            title: None,
            description: MaybeUndefined::Undefined,
            completion: completion.completed.map_or(Completion::Flip, Completion::from),
            always: completion.completed.is_none(),
            at: self.store.clock.now(),
            expected,
            once,
        };
        let flips = alteration.always;
        self.store.ask(self.owner, alteration, Request::Change, |outcome| flips && !outcome.is_replay).await
    }

    /// What has changed since then, at most `limit` tasks and deletions.
    ///
    /// A reader who applies what comes, call after call, has missed no change that was committed when it has come to the end.
    ///
    /// # Errors
    /// [`Fault::ChangesExpired`] if that can't be told any more; [`Fault::Unavailable`] if the database did not answer.
    pub async fn changes(&self, since: Option<Since>, limit: u16) -> Result<Changes, Fault> {
        Ok(self.follow(since, limit).await?.changes)
    }

    /// The same, as soon as something has changed; or nothing, if the server stops. It does not hold a connection to the database
    /// meanwhile.
    ///
    /// # Errors
    /// Those of [`changes`](Self::changes); [`Fault::TooManyWaiting`] or [`Fault::Crowded`] if too many wait.
    pub async fn next_changes(&self, since: Option<Since>, limit: u16) -> Result<Changes, Fault> {
        let mut waiter = self.store.waiting.begin(self.owner)?;
        loop {
            let Told { changes, revision } = self.follow(since, limit).await?;
            if !changes.is_empty() || !waiter.wait(revision).await {
                return Ok(changes);
            }
        }
    }

    async fn follow(&self, since: Option<Since>, limit: u16) -> Result<Told, Fault> {
        let since = since.unwrap_or_else(|| Since::start(self.owner.id()));
        if !since.is_of(self.owner.id()) {
            return Err(Fault::ChangesExpired);
        }
        self.store.ask(self.owner, Following { since, limit }, Request::Changes, |_| true).await
    }

    /// Deletes one task for good.
    ///
    /// # Errors
    /// [`Fault::NoSuchTask`] if this owner has no task `id`, also the second time; [`Fault::VersionMismatch`] if it is
    /// not of the `expected` version; [`Fault::Unavailable`] if the database did not answer.
    pub async fn remove(&self, id: TaskId, expected: ExpectedVersion) -> Result<(), Fault> {
        self.store
            .ask(self.owner, Removal { id, expected, at: self.store.clock.now() }, Request::Remove, |()| true)
            .await
    }
}

impl Store {
    /// Asks the database, together with others who ask for the same kind of thing. `proves` tells whether an answer shows that the
    /// database can serve such requests.
    async fn ask<W, A>(
        &self,
        owner: &Owner,
        work: W,
        request: impl FnOnce(Asked<W, A>) -> Request,
        proves: impl FnOnce(&A) -> bool,
    ) -> Result<A, Fault> {
        let (asked, answer) = Asked::new(owner.clone(), work);
        let turn = asked.turn.clone();
        let request = request(asked);
        let writes = request.kind().writes();
        let using = self.last_use.begin(writes);
        self.lanes.queue.push(request);
        // Whoever served it has broken down if there is none.
        let outcome = answer.await.map_err(|_| Fault::defect("nobody answered a request to the database"))?;
        if let Some(turn) = turn {
            turn.answer();
        }
        using.end(&outcome, proves);
        if writes && outcome.is_ok() {
            self.waiting.tell(owner);
        }
        outcome
    }
}
