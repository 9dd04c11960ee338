//! Sockets to listen on, that are there before the network is.
//!
//! For the relay's listeners and the admin address alike. An address that no interface has
//! yet is no error, but said in the log; one that somebody else has is an error of the caller's.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait in the kernel. The kernel's own limit is
/// `net.core.somaxconn`, 4,096 unless changed.
const BACKLOG: i32 = 4096;

/// A socket that listens on an address, which no interface needs to have yet.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the run before to time out.
    socket.set_reuse_address(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // Both families, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            // At boot the agent is there before the network is.
            tracing::warn!(
                %address,
                "no interface of this host has this address yet; connections are taken as soon \
                 as one has"
            );
            match address {
                SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
                SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
            }
            socket.bind(&address.into())?;
        }
        bound => bound?,
    }
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
