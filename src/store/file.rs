//! The file of a SQLite database: private, warned about if another server has it, and noticed if it is deleted or replaced.

use std::{
    fs::{self, File, OpenOptions},
    io,
    mem::ManuallyDrop,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A database file that is open.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    /// It stays open until the process ends: to close any descriptor of the file gives up the locks that SQLite holds on it,
    /// in this whole process (`fcntl`).
    file: ManuallyDrop<File>,
    is_read_only: bool,
}

impl DatabaseFile {
    /// Opens the file at `path`. It is made if it is not there, readable by nobody else: `SQLite` gives its other files the
    /// same permissions.
    ///
    /// # Errors
    /// It can't be opened or made; the message names the path.
    pub(super) fn open(path: &Path, reads_only: bool) -> io::Result<Self> {
        let named =
            |path: &Path, error: &io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
            fs::create_dir_all(folder).map_err(|error| named(folder, &error))?;
        }
        let options = || OpenOptions::new().read(true).mode(0o600).clone();
        let (file, is_read_only) = match options().write(!reads_only).create(!reads_only).truncate(false).open(path) {
            Ok(file) if reads_only => (file, true),
            Ok(file) => (file, false),
            // Reads can be served all the same.
            Err(error) if is_refusal_to_write(&error) && path.is_file() => {
                (options().open(path).map_err(|error| named(path, &error))?, true)
            }
            Err(error) => return Err(named(path, &error)),
        };
        Ok(Self { path: path.to_owned(), file: ManuallyDrop::new(file), is_read_only })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can't be written.
    pub(super) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Takes the file for this server, if no other has it.
    pub(super) fn is_ours_alone(&self) -> bool {
        self.file.try_lock().is_ok()
    }

    /// Whether the path still leads to this file. If not, what is written is in no file that has a name.
    pub(super) fn is_in_place(&self) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::metadata(&self.path).map(identity);
        matches!((named, self.file.metadata().map(identity)), (Ok(named), Ok(open)) if named == open)
    }
}

fn is_refusal_to_write(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}
