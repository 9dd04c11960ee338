//! The two listeners: a TCP address for anybody, and the control socket.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::{Caller, caller::Operators};

/// A source of connections.
pub(super) trait Listen: Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Who is at the other end, and whether he is listened to; nobody on an address for anybody.
    fn judge(
        &self,
        stream: &Self::Stream,
    ) -> impl Future<Output = io::Result<Option<(Caller, bool)>>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    async fn judge(&self, _: &TcpStream) -> io::Result<Option<(Caller, bool)>> {
        Ok(None)
    }
}

/// The control socket.
pub(super) struct ControlSocket {
    listener: UnixListener,
    operators: Operators,
}

impl Listen for ControlSocket {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    async fn judge(&self, stream: &UnixStream) -> io::Result<Option<(Caller, bool)>> {
        self.operators.judge(stream).await.map(Some)
    }
}

/// Binds a socket that only its owner and the members of a group may open, replacing one that
/// nobody answers on.
pub(super) async fn bind(path: &Path, group: Option<&str>) -> io::Result<ControlSocket> {
    let operators = Operators::group(group)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    if let Some(gid) = operators.gid() {
        // Before the mode, so that no other group is let in for a moment.
        chown(path, None, Some(gid.as_raw())).map_err(|error| {
            let name = group.unwrap_or_default();
            let hint = "the agent's user has to be a member of it";
            io::Error::new(error.kind(), format!("giving it to group {name}: {error}; {hint}"))
        })?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    }
    Ok(ControlSocket { listener, operators })
}

/// Removes the socket with the server.
pub(super) struct RemoveOnDrop(pub(super) PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let Self(path) = self;
        let _ = fs::remove_file(path);
    }
}
