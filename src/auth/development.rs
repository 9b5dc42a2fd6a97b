//! The secret of a server that was given none: made once, at random, and kept beside the data.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use uuid::Uuid;

use crate::config::{MIN_SECRET_BYTES, Secret};

/// Where it is kept, below the working directory.
pub const FILE: &str = "data/development-secret";

/// The secret in [`FILE`], below `directory`. It is made if it is not there.
///
/// # Errors
/// If it can't be read or written, or is too short to be one.
pub fn secret(directory: &Path) -> io::Result<Secret> {
    let file = directory.join(FILE);
    let text = match fs::read_to_string(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => make(&file)?,
        text => text?,
    };
    let secret = text.trim_end();
    if secret.len() < MIN_SECRET_BYTES {
        return Err(io::Error::other(format!(
            "it is shorter than {MIN_SECRET_BYTES} bytes; delete it to have it made"
        )));
    }
    Ok(secret.to_owned().into())
}

fn make(file: &Path) -> io::Result<String> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    // Two random UUIDs are 244 bits of a cryptographic generator that the system seeds.
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    // Written whole under a name of its own, then linked: of several processes that start at once, one wins, and
    // none reads half a secret.
    let draft = file.with_extension(Uuid::new_v4().simple().to_string());
    let write = || {
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        to.write_all(secret.as_bytes())?;
        to.sync_all()?;
        match fs::hard_link(&draft, file) {
            // Not every file system has links (FAT, some mounts of containers). A file that must not be there serves there;
            // what is lost is that nobody could read half a secret, which would be refused as too short.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
                to.write_all(secret.as_bytes())?;
                to.sync_all()
            }
            linked => linked,
        }
    };
    let written = write();
    // It may not even have been made.
    let _ = fs::remove_file(&draft);
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::read_to_string(file),
        written => written.map(|()| secret),
    }
}
