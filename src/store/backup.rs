//! Copies of a SQLite database: made while the server runs, and put back while it does not.
//!
//! A copy is what the database was at one moment. Whoever has read tasks since then has entity tags that the restored database
//! must not give out again for other content: every version and every revision is raised by a jump that no client has come to.
//! Whoever follows the changes has to start over: what it knows may never have been, in this database.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
    process,
    str::FromStr,
    thread,
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    backup::{Backup, StepResult},
};
use sqlx::sqlite::SqliteConnectOptions;

use super::file::DatabaseFile;
use crate::{clock::Clock, config};

/// How many pages are copied between two looks at how far it is.
const PAGES: i32 = 1_000;
/// How long to wait for somebody else's lock before trying again.
const PAUSE: Duration = Duration::from_millis(50);
/// By how much versions and revisions are raised at least: more than anything is written between a backup and its restoration, and
/// little enough for a thousand of them.
const JUMP: u32 = 1_000_000;
/// What the names of a database's files end in: itself, its write-ahead log with the index of that, or its rollback journal.
const PARTS: [&str; 4] = ["", "-wal", "-shm", "-journal"];
/// What the name of a database ends in that is being restored.
pub const RESTORED: &str = ".restored";

/// Why there is no copy, or none was put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is no file.
    #[error(
        "`database.url` is a PostgreSQL, which has tools of its own: docs/UPGRADING.md says how to use them, and what to do \
         after a restoration"
    )]
    NotSqlite,
    /// There is no such file.
    #[error("there is no file {0}")]
    Missing(PathBuf),
    /// Nothing is overwritten.
    #[error("{0} is there already: name another file, or move it away")]
    Exists(PathBuf),
    /// A server uses the database.
    #[error("a server has {0} open: stop it first")]
    InUse(PathBuf),
    /// The file is no database of ours.
    #[error("{0} is not a database of this server: it has no table `tasks`")]
    Foreign(PathBuf),
    /// The file is damaged.
    #[error("{file} is damaged: {complaint}")]
    Damaged {
        /// Which.
        file: PathBuf,
        /// What SQLite says of it.
        complaint: String,
    },
    /// A file can't be read or written.
    #[error("can't use {file}")]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// SQLite failed.
    #[error("SQLite failed")]
    Sqlite(#[from] rusqlite::Error),
}

/// Copies the database of `settings` to `target`, verifies the copy, and tells meanwhile how many pages of how many are done.
/// Others read and write meanwhile.
///
/// # Errors
/// There is no such database, or the copy can't be made. Then there is no `target`.
pub fn backup(settings: &config::Database, target: &Path, progress: impl FnMut(u64, u64)) -> Result<(), BackupError> {
    let source = file(settings)?;
    if !source.exists() {
        return Err(BackupError::Missing(source));
    }
    if target.exists() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    let partial = with_suffix(target, &format!(".partial-{}", process::id()));
    copy(&source, &partial, progress)?;
    // A link, unlike a new name, does not take the place of a file that has come meanwhile.
    let placed = match fs::hard_link(&partial, target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(BackupError::Exists(target.to_owned())),
        // Not every file system has links.
        Err(_) => rename(&partial, target),
        Ok(()) => sync_folder_of(target),
    };
    remove(&partial)?;
    placed
}

/// Verifies the copy at `source`, and makes the new database of it, which then lies beside the one of `settings`, ready for
/// [`put_in_place`].
///
/// # Errors
/// A server has the database open, or the copy can't be used. Nothing has been changed.
pub fn prepare_restoration(
    settings: &config::Database,
    source: &Path,
    progress: impl FnMut(u64, u64),
) -> Result<PathBuf, BackupError> {
    let target = file(settings)?;
    if !source.exists() {
        return Err(BackupError::Missing(source.to_owned()));
    }
    if target.exists() {
        let open =
            DatabaseFile::open(&target, false).map_err(|cause| BackupError::File { file: target.clone(), cause })?;
        if !open.is_ours_alone() {
            return Err(BackupError::InUse(target));
        }
    }
    let restored = with_suffix(&target, RESTORED);
    remove(&restored)?;
    copy(source, &restored, progress)?;
    Ok(restored)
}

/// Raises every version and revision in `restored`, which has the schema of this program, and puts it in the place of the database
/// of `settings`, which is kept under the name that this gives back, if there was one.
///
/// # Errors
/// A server has the database open, SQLite failed, or a file can't be renamed. The database is as it was.
pub fn put_in_place(settings: &config::Database, restored: &Path) -> Result<Option<PathBuf>, BackupError> {
    let target = file(settings)?;
    let database = Connection::open(restored)?;
    let now = chrono::DateTime::<chrono::Utc>::from(Clock.now());
    // Another one each time: what comes after this restoration is not to be taken for what came after one before, of the same copy.
    let (versions, time) = (i64::from(JUMP) + now.timestamp() % i64::from(JUMP), now.timestamp_micros());
    database.execute_batch(&format!(
        "begin; \
         update tasks set version = min(version + {versions}, 2147483647), revision = revision + \
           (select max({JUMP}, {time} - u.revision) from users u where u.id = tasks.user_id); \
         update users set revision = max(revision + {JUMP}, {time}); \
         update users set swept_revision = revision; commit"
    ))?;
    one_file(&database)?;
    drop(database);
    if target.exists() {
        close(&target)?;
        let failed = |cause| BackupError::File { file: restored.to_owned(), cause };
        let of = fs::metadata(&target).map_err(failed)?;
        // For whoever the server runs as.
        if fs::metadata(restored).map_err(failed)?.uid() != of.uid() {
            chown(restored, Some(of.uid()), Some(of.gid())).map_err(failed)?;
        }
    }
    let before = free_name(&target);
    // Also a log without its database: SQLite would take what is in it for that of the restored one.
    let parts = PARTS.map(|part| (with_suffix(&target, part), with_suffix(&before, part)));
    let mut moved = Vec::new();
    let mut steps = parts.iter().filter(|(from, _)| from.exists()).collect::<Vec<_>>();
    let last = (restored.to_owned(), target.clone());
    steps.push(&last);
    for (from, to) in steps {
        if let Err(error) = rename(from, to) {
            for (from, to) in moved.into_iter().rev() {
                rename(to, from)?;
            }
            return Err(error);
        }
        moved.push((from, to));
    }
    Ok((moved.len() > 1).then_some(before))
}

/// Removes what [`prepare_restoration`] made.
///
/// # Errors
/// It can't be removed.
pub fn give_up(restored: &Path) -> Result<(), BackupError> {
    remove(restored)
}

/// Writes the log of a database back into its file, which nobody but us may have open. What can't be read as a database has none.
fn close(target: &Path) -> Result<(), BackupError> {
    let database = Connection::open_with_flags(target, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mode = database.query_row("pragma journal_mode = delete", [], |row| row.get::<_, String>(0));
    match mode {
        Ok(mode) if mode == "delete" => Ok(()),
        Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => Ok(()),
        _ => Err(BackupError::InUse(target.to_owned())),
    }
}

/// A name for the database before, that nothing has.
fn free_name(target: &Path) -> PathBuf {
    let time = chrono::DateTime::<chrono::Utc>::from(Clock.now()).format("%Y%m%dT%H%M%S");
    let name = |n: u32| {
        with_suffix(target, &format!(".before-{time}{}", if n == 0 { String::new() } else { format!("-{n}") }))
    };
    let is_free = |name: &PathBuf| PARTS.iter().all(|part| !with_suffix(name, part).exists());
    (0..=u32::MAX).map(name).find(is_free).expect("there are more names than files")
}

/// The database's file.
fn file(settings: &config::Database) -> Result<PathBuf, BackupError> {
    let options = SqliteConnectOptions::from_str(settings.url.expose()).ok().filter(|_| settings.url.is_sqlite());
    options.map(|options| options.get_filename().to_owned()).ok_or(BackupError::NotSqlite)
}

/// Copies a database as it is at this moment into one new file, which nobody else may read, and verifies it.
fn copy(from: &Path, to: &Path, progress: impl FnMut(u64, u64)) -> Result<(), BackupError> {
    let failed = |cause| BackupError::File { file: to.to_owned(), cause };
    remove(to)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let copied = copy_pages(from, to, progress);
    if copied.is_err() {
        let _ = fs::remove_file(to);
    }
    copied
}

fn copy_pages(from: &Path, to: &Path, mut progress: impl FnMut(u64, u64)) -> Result<(), BackupError> {
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .or_else(|_| Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY))?;
    source.busy_timeout(Duration::from_secs(5))?;
    let is_damaged = |complaint: String| BackupError::Damaged { file: from.to_owned(), complaint };
    let ours = "select count(*) from sqlite_schema where name = 'tasks'";
    // It reads from now on what there is at this moment: else whatever others write would have the copy begun anew.
    source.execute_batch("begin").map_err(|error| is_damaged(error.to_string()))?;
    match source.query_row(ours, [], |row| row.get::<_, u32>(0)) {
        Ok(0) => return Err(BackupError::Foreign(from.to_owned())),
        Ok(_) => {}
        Err(error) => return Err(is_damaged(error.to_string())),
    }
    let mut target = Connection::open(to)?;
    target.pragma_update(None, "synchronous", "full")?;
    {
        let backup = Backup::new(&source, &mut target)?;
        loop {
            let step = backup.step(PAGES)?;
            let pages = backup.progress();
            let [left, all] = [pages.remaining, pages.pagecount].map(|pages| u64::try_from(pages).unwrap_or_default());
            progress(all - left, all);
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // Somebody else's lock.
                _ => thread::sleep(PAUSE),
            }
        }
    }
    one_file(&target)?;
    let complaint: String = target.query_row("pragma integrity_check(1)", [], |row| row.get(0))?;
    if complaint == "ok" { Ok(()) } else { Err(is_damaged(complaint)) }
}

/// Sees to it that all of a database is in one file, without a log beside it.
fn one_file(database: &Connection) -> Result<(), BackupError> {
    database.query_row("pragma journal_mode = delete", [], |_| Ok(()))?;
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes what an attempt that broke off has left.
fn remove(file: &Path) -> Result<(), BackupError> {
    for part in PARTS {
        match fs::remove_file(with_suffix(file, part)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(BackupError::File { file: file.to_owned(), cause });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Renames a file, so that it lasts.
fn rename(from: &Path, to: &Path) -> Result<(), BackupError> {
    let failed = |cause| BackupError::File { file: to.to_owned(), cause };
    fs::rename(from, to).map_err(failed)?;
    sync_folder_of(to)
}

fn sync_folder_of(file: &Path) -> Result<(), BackupError> {
    let failed = |cause| BackupError::File { file: file.to_owned(), cause };
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}
