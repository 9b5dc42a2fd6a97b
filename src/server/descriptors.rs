//! How many connections the system allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files beside those of connections: the standard ones, the listener, what a fetch of keys or a log file needs.
const OTHERS: u64 = 40;
/// The files of a connection to SQLite: the database, its log, and the log's index.
const FILES_OF_DATABASE: u64 = 3;

/// How many connections can have a place: as many as are configured, if the system allows so many open files. It is asked
/// for as many as it lets this process have.
pub(super) fn places(config: &Config) -> usize {
    let wanted: u64 = config.server.max_connections.get();
    let needed = OTHERS + FILES_OF_DATABASE * (config.database.max_connections.get::<u64>() + 3);
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.map_or(wanted + needed, |maximum| maximum.min(wanted + needed));
    let mut allowed = limit.current.unwrap_or(u64::MAX);
    if allowed < enough && setrlimit(Resource::Nofile, Rlimit { current: Some(enough), maximum: limit.maximum }).is_ok()
    {
        allowed = enough;
    }
    // A few can be served even where the estimate leaves none.
    let places = wanted.min(allowed.saturating_sub(needed).max(8));
    if places < wanted {
        tracing::warn!(
            "{places} connections have a place, and not {wanted} (`server.max_connections`): the system allows {allowed} open \
             files (`ulimit -n`)"
        );
    }
    usize::try_from(places).unwrap_or(usize::MAX)
}
