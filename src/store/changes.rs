//! The feed of changes: what is asked of the database for it, and how it is answered.
//!
//! Revisions are in the order of the commits, owner by owner, and each change has one of its own: so whoever has everything up to
//! a revision misses nothing by asking for what is above it. Deletions are remembered for a time. `users.swept_revision` is the
//! revision up to which they may be forgotten: who knows less than that is told to start over, and never less than there was.

use uuid::Uuid;

use super::NO_REVISION;
use crate::{
    changes::{Changes, DeletedTask, Since},
    problem::Fault,
    task::{Task, TaskId},
};

/// Which part of the owner's feed.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) since: Since,
    pub(super) limit: u16,
}

impl Following {
    /// One more than is told, which tells whether there is more.
    pub(super) fn most(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The place after which deletions are to be told. Who begins need not be told of any.
    pub(super) fn deletions_after(&self) -> (i64, Uuid) {
        let Since { revision, id, deletions, .. } = self.since;
        if self.since.is_start() { (i64::MAX, Uuid::max()) } else { (revision, id).max((deletions, Uuid::max())) }
    }

    /// How many rows it may give back.
    pub(super) fn weight(&self) -> usize {
        // Usually there is nothing new.
        if self.since.end_revision().is_some() { 1 } else { self.limit.into() }
    }
}

/// A task that was changed, or deleted, at a revision.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) revision: i64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Changed(Task),
    Deleted(DeletedTask),
}

impl Entry {
    fn place(&self) -> (i64, TaskId) {
        let id = match &self.what {
            What::Changed(task) => task.id,
            What::Deleted(task) => task.id,
        };
        (self.revision, id)
    }
}

/// What the database has, all at one moment.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The owner's revision, and the one up to which deletions may be forgotten. None if the database does not know the owner.
    pub(super) user: Option<(i64, i64)>,
    /// The next entries, in any order.
    pub(super) entries: Vec<Entry>,
}

/// What is told, and the owner's revision at that moment.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) changes: Changes,
    pub(super) revision: i64,
}

impl Found {
    /// What the owner is told.
    ///
    /// # Errors
    /// [`Fault::ChangesExpired`]
    pub(super) fn tell(self, asked: &Following) -> Result<Told, Fault> {
        let Self { user, mut entries } = self;
        let since = asked.since;
        let (revision, swept) = user.unwrap_or((NO_REVISION, NO_REVISION));
        if !since.is_start() {
            let (known, id) = asked.deletions_after();
            // In the middle of a revision, a deletion at it may be unknown.
            let is_too_old = known < swept || (known == swept && id != Uuid::max());
            // The database was restored, or the owner erased.
            let is_ahead = since.revision.max(since.deletions) > revision;
            if is_too_old || is_ahead {
                return Err(Fault::ChangesExpired);
            }
        }
        entries.sort_unstable_by_key(|entry| {
            let (revision, id) = entry.place();
            (revision, id.0)
        });
        let has_more = entries.len() > usize::from(asked.limit);
        entries.truncate(asked.limit.into());
        let next = match entries.last().filter(|_| has_more).map(Entry::place) {
            // What was deleted before the reader began is none of its business.
            Some((of, id)) if since.is_start() => since.end(revision).at(of, id),
            Some((of, id)) => since.at(of, id),
            None => since.end(revision),
        };
        let (mut tasks, mut deleted) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry.what {
                What::Changed(task) => tasks.push(task),
                What::Deleted(task) => deleted.push(task),
            }
        }
        Ok(Told { changes: Changes { tasks, deleted, next, has_more }, revision })
    }
}
