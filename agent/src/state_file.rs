//! Files of the state directory, which belong to whoever the directory belongs to.
//!
//! The agent is not root, and an operator often is: what a command run by root leaves behind,
//! under whatever umask, the agent has to be able to read and to replace. So what is new is for
//! its owner alone, and root gives it to the owner of the directory. The directory may be
//! another user's, so root follows no link that lies there: only what it made just now
//! is given away. Where the agent meets what is not its own, the error says how it becomes that.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::Path,
};

use nix::{
    fcntl::OFlag,
    unistd::{Gid, Uid, User, fchown, geteuid},
};

/// Makes a file, in the place of one that may be there.
///
/// # Errors
///
/// If the system refuses.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(advise(error, place(path))),
        _ => make(path),
    }
}

/// Opens a file to write at its end; makes it if it is not there.
///
/// # Errors
///
/// If the system refuses, or the file is a link.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        opened => opened,
    }
}

/// Opens a file to write at its end.
///
/// # Errors
///
/// If the system refuses, it is not there, or it is a link.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let opened = options.append(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path);
    opened.map_err(|error| advise(error, place(path)))
}

/// Makes a directory, and those above it, if they are not there; and has it for its owner alone.
///
/// # Errors
///
/// If the system refuses.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        make_directory(path)?;
    }
    open_directory(path)
        .and_then(|directory| directory.set_permissions(Permissions::from_mode(0o700)))
        .map_err(|error| advise(error, path))
}

fn make(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let made = options.append(true).create_new(true).mode(0o600).open(path);
    let file = made.map_err(|error| advise(error, place(path)))?;
    give(&file, path)?;
    Ok(file)
}

fn make_directory(path: &Path) -> io::Result<()> {
    if !place(path).is_dir() {
        make_directory(place(path))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => give(&open_directory(path)?, path),
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(advise(error, place(path))),
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    // A link of the owner of all of it may well lead to another disk.
    let link = if stranger(path)?.is_some() { OFlag::O_NOFOLLOW } else { OFlag::empty() };
    OpenOptions::new().read(true).custom_flags((OFlag::O_DIRECTORY | link).bits()).open(path)
}

/// Gives what was just made to the owner of the directory that it lies in.
fn give(file: &File, path: &Path) -> io::Result<()> {
    match stranger(path)? {
        Some((user, group)) => Ok(fchown(file, Some(user), Some(group))?),
        None => Ok(()),
    }
}

/// Whose directory something lies in, where root works in that of another user.
fn stranger(path: &Path) -> io::Result<Option<(Uid, Gid)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let owner = fs::metadata(place(path))?;
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    Ok((!user.is_root()).then_some((user, group)))
}

/// The directory that something lies in.
fn place(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Says with a refusal how a path becomes the agent's own.
pub(crate) fn advise(error: io::Error, path: &Path) -> io::Error {
    let user = geteuid();
    if error.kind() != io::ErrorKind::PermissionDenied || user.is_root() {
        return error;
    }
    let name = User::from_uid(user).ok().flatten().map_or(user.to_string(), |user| user.name);
    let problem = format!(
        "{error}; if a command that was run as root made it, give it to the agent: chown -R \
         {name}: {}",
        path.display()
    );
    io::Error::new(io::ErrorKind::PermissionDenied, problem)
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_new_file_is_for_its_owner_alone_and_holds_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        for (open, expected) in [(create as fn(&Path) -> _, "two"), (append, "onetwo")] {
            let path = directory.path().join(expected);
            open(&path).unwrap().write_all(b"one").unwrap();
            open(&path).unwrap().write_all(b"two").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_directory_is_made_with_those_above_it_and_is_for_its_owner_alone() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("made/when/needed");
        for _ in 0..2 {
            directory(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(path.join("file"), "").unwrap();
        assert!(directory(&path.join("file")).is_err());
    }

    #[test]
    fn a_link_leads_to_no_file_of_somebody_else() {
        let directory = tempfile::tempdir().unwrap();
        let (other, link) = (directory.path().join("other"), directory.path().join("link"));
        fs::write(&other, "as it was").unwrap();
        symlink(&other, &link).unwrap();
        assert!(append(&link).is_err());
        create(&link).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "as it was");
        assert_eq!(fs::read_to_string(&link).unwrap(), "new");
    }
}
