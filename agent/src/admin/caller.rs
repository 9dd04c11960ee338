//! Who speaks on the control socket, by the kernel's word (SO_PEERCRED).
//!
//! The mode of the socket keeps others out already. It is a file in a directory, though, and
//! somebody may loosen both; so whoever comes is looked at once more.

use std::{ffi::CString, io};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixStream, unix::UCred};

/// A process at the other end of the control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// The name of the user, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its number.
    pub pid: Option<i32>,
}

/// Who is listened to beside root and the agent's own user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operators(Option<Gid>);

impl Operators {
    /// The members of a group, by its name.
    pub(super) fn group(name: Option<&str>) -> io::Result<Self> {
        let Some(name) = name else { return Ok(Self(None)) };
        let problem = || format!("no group {name:?}, which admin.group names");
        let unknown = || io::Error::new(io::ErrorKind::NotFound, problem());
        let group = Group::from_name(name)?.ok_or_else(unknown)?;
        Ok(Self(Some(group.gid)))
    }

    /// The group that the socket is to have.
    pub(super) fn gid(self) -> Option<Gid> {
        let Self(gid) = self;
        gid
    }

    /// Who is at the other end, and whether that is one of them.
    pub(super) async fn judge(self, stream: &UnixStream) -> io::Result<(Caller, bool)> {
        let credentials = stream.peer_cred()?;
        // The user database may be far away.
        let judged = tokio::task::spawn_blocking(move || self.look_up(credentials)).await;
        judged.map_err(io::Error::other)
    }

    fn look_up(self, credentials: UCred) -> (Caller, bool) {
        let uid = Uid::from_raw(credentials.uid());
        let user = User::from_uid(uid).ok().flatten();
        let is_operator = uid.is_root()
            || uid == Uid::effective()
            || self.gid().is_some_and(|gid| {
                gid.as_raw() == credentials.gid()
                    || user.as_ref().is_some_and(|user| is_member(user, gid))
            });
        let caller =
            Caller { uid: uid.as_raw(), user: user.map(|user| user.name), pid: credentials.pid() };
        (caller, is_operator)
    }
}

fn is_member(user: &User, gid: Gid) -> bool {
    CString::new(user.name.as_str())
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok())
        .is_some_and(|groups| groups.contains(&gid))
}
