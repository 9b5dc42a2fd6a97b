//! The feed of changes, by which a client keeps what it has in step with what the server has.

use poem::{http::StatusCode, web::Data};
use poem_openapi::{OpenApi, registry::MetaResponse, types::Type};
use tokio::time;

use super::{
    Tag, declares,
    reply::{Described, Reply, json, response},
};
use crate::{
    auth::Owner,
    changes,
    problem::{Fault, Problem, types},
    request::{Known, Limit, Path, Presence, Query, Wait},
    store::Store,
};

/// The operation on a user's changes.
#[derive(Debug)]
pub struct Changes {
    store: Store,
}

impl Changes {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }
}

#[OpenApi(tag = "Tag::Tasks")]
impl Changes {
    /// List changes
    ///
    /// For a client that keeps tasks of its own, on a telephone for example: what was created, changed and deleted since its last
    /// call, however long ago that is. The first call has no `since`; each later one has the `next` of the answer before. Call
    /// again at once while `has_more` is true. Each task comes as it is now, in the order of the last changes; one that changes
    /// while the pages are read comes again.
    ///
    /// With `wait` the call waits for the next change, also one that another server makes. A client that always has such a call
    /// open sees each change within a second.
    ///
    /// Deletions are remembered for a time, 30 days unless the operator has chosen another. A client that was away for longer is
    /// answered 410: it calls without `since`, and lets what comes replace what it has.
    #[oai(path = "/api/:user_id/changes", method = "get", operation_id = "listChanges")]
    async fn list_changes(
        &self,
        user_id: Path<Owner>,
        since: Query<Known>,
        limit: Query<Limit>,
        wait: Query<Wait>,
        caller: Data<&Presence>,
    ) -> Result<Reply<Told>, Problem<OnChanges>> {
        let (owner, since) = (user_id.get()?, since.get()?);
        let (limit, wait) = (limit.get()?.unwrap_or_default(), wait.get()?.unwrap_or_default());
        // What can't be read was written by another version, or is none; either way nobody knows what has changed since.
        let since = since.map(|Known(place)| place.ok_or(Fault::ChangesExpired)).transpose()?;
        let tasks = self.store.tasks(&owner);
        let mut changes = tasks.changes(since, limit.0).await?;
        if changes.is_empty() && !wait.duration().is_zero() {
            tokio::select! {
                news = tasks.next_changes(since, limit.0) => changes = news?,
                // Whoever sends nothing more is answered at once: usually it has gone.
                _ = time::timeout(wait.duration(), caller.left()) => {}
            }
        }
        Ok(json(StatusCode::OK, &changes).into())
    }
}

declares! {
    /// What listing changes may answer.
    OnChanges: types::AUTH, types::CHECKED, types::CHANGES, types::DATABASE;
}

/// What has changed.
#[derive(Debug)]
struct Told;

impl Described for Told {
    type Body = changes::Changes;

    fn responses() -> Vec<MetaResponse> {
        let description = "What has changed, or nothing.";
        vec![response(StatusCode::OK, description, Some(changes::Changes::schema_ref()), Vec::new())]
    }
}
