//! Written pages, kept as long as there is room.
//!
//! A page that is kept is given out only after the database has said that its revision is still the owner's. So it is never
//! stale, with any number of servers.

use quick_cache::{Weighter, sync::Cache};

use super::request::{Listing, Page};
use crate::{
    auth::Owner,
    task::{TaskId, TaskStatus},
};

/// What a page costs beside its bytes: the key and the bookkeeping.
const OVERHEAD_BYTES: u64 = 256;
/// About how large a page is, in bytes: for the first guess at how many there is room for.
const USUAL_BYTES: u64 = 8 * 1024;

/// Whose page, and which.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PageKey {
    owner: Owner,
    status: TaskStatus,
    after: Option<TaskId>,
    limit: u16,
}

impl PageKey {
    pub(super) fn new(owner: &Owner, status: TaskStatus, after: Option<TaskId>, limit: u16) -> Self {
        Self { owner: owner.clone(), status, after, limit }
    }

    /// What is asked of the database for it. `callers` is the revision of the page that the caller has, `kept` that of ours.
    pub(super) fn listing(&self, callers: Option<i64>, kept: Option<i64>) -> Listing {
        Listing { status: self.status, after: self.after, limit: self.limit, callers, kept }
    }
}

/// The pages that are kept.
#[derive(Debug)]
pub(super) struct Pages(Option<Cache<PageKey, Page, ByBytes>>);

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<PageKey, Page> for ByBytes {
    fn weight(&self, _: &PageKey, page: &Page) -> u64 {
        page.json.len() as u64 + OVERHEAD_BYTES
    }
}

impl Pages {
    /// Keeps pages of `max_bytes` in all; none, if that is 0.
    pub(super) fn new(max_bytes: u64) -> Self {
        let count = usize::try_from(max_bytes / USUAL_BYTES).unwrap_or(usize::MAX);
        Self((max_bytes > 0).then(|| Cache::with_weighter(count, max_bytes, ByBytes)))
    }

    pub(super) fn get(&self, key: &PageKey) -> Option<Page> {
        self.0.as_ref()?.get(key)
    }

    pub(super) fn keep(&self, key: PageKey, page: &Page) {
        if let Some(pages) = &self.0 {
            pages.insert(key, page.clone());
        }
    }
}
