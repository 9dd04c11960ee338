//! Files of the state directory, which belong to whoever the directory belongs to.
//!
//! The agent is not root, and an operator often is: what a command run by root leaves behind,
//! under whatever umask, the agent has to be able to read and to replace. So a new file is for
//! its owner alone, and root gives it to the owner of the directory. The directory may be
//! another user's, so root follows no link that lies there: only a file that it made just now
//! is given away.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::{
    fcntl::OFlag,
    unistd::{Gid, Uid, fchown, geteuid},
};

/// Makes a file, in the place of one that may be there.
///
/// # Errors
///
/// If the system refuses.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => make(path),
    }
}

/// Opens a file to write at its end; makes it if it is not there.
///
/// # Errors
///
/// If the system refuses, or the file is a link.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    match options.append(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        opened => opened,
    }
}

fn make(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    let me = geteuid();
    if let Some(directory) = path.parent().filter(|_| me.is_root()) {
        let owner = fs::metadata(directory)?;
        if owner.uid() != me.as_raw() {
            let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
            fchown(&file, Some(user), Some(group))?;
        }
    }
    Ok(file)
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
