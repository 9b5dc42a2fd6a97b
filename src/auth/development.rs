//! The secret of a server that was given none: made once, at random, and kept beside the data.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process,
};

use uuid::Uuid;

use crate::config::Secret;

/// Where it is kept, below the working directory.
pub const FILE: &str = "data/development-secret";

/// The secret in [`FILE`], below `directory`. It is made if it is not there.
///
/// # Errors
/// If it can't be read or written.
pub fn secret(directory: &Path) -> io::Result<Secret> {
    let file = directory.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.trim_end().to_owned().into()),
        Err(error) if error.kind() == ErrorKind::NotFound => make(&file),
        Err(error) => Err(error),
    }
}

fn make(file: &Path) -> io::Result<Secret> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    // Two random UUIDs are 244 bits from the system's generator.
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    // Written whole under a name of its own, then linked: of several processes that start at once, one wins, and
    // none reads half a secret.
    let draft = file.with_extension(process::id().to_string());
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let made = options.open(&draft).and_then(|mut to| to.write_all(secret.as_bytes()));
    let linked = made.and_then(|()| fs::hard_link(&draft, file));
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok(secret.into()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(fs::read_to_string(file)?.into()),
        Err(error) => Err(error),
    }
}
