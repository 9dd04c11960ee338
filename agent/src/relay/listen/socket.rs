//! Sockets to listen on: our own, or those that systemd hands over.
//!
//! What is set on a listening socket holds for the connections that it accepts,
//! so `TCP_NODELAY` costs no system call for each of them. Sockets of systemd's
//! stay with systemd: when we stop, connections wait in them for the next start.

use std::{io, net::SocketAddr, time::Duration};

use listenfd::ListenFd;
use socket2::{SockRef, TcpKeepalive};

use super::Error;
use crate::{config::ListenerAddress, listening::bind};

/// How long a connection is silent before the kernel asks whether the client is still
/// there: devices on the way forget connections after about five minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// The sockets that systemd handed over to this process, by name. Each can be
/// taken once.
pub struct Inherited {
    sockets: ListenFd,
    names: Vec<String>,
}

impl Inherited {
    /// Reads `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES`. To be called once
    /// and early: descriptors that were handed over are only told by number.
    #[must_use]
    pub fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).collect();
        Self { sockets: ListenFd::from_env(), names }
    }

    /// No sockets.
    #[must_use]
    pub fn none() -> Self {
        Self { sockets: ListenFd::empty(), names: Vec::new() }
    }

    /// Takes the sockets of this name; a unit with several `ListenStream=` has
    /// several.
    fn take(&mut self, name: &str) -> Result<Vec<std::net::TcpListener>, String> {
        let mut taken = Vec::new();
        for (index, _) in self.names.iter().enumerate().filter(|(_, known)| *known == name) {
            let socket = self.sockets.take_tcp_listener(index).map_err(|error| {
                format!("what systemd handed over as {name:?} is of no use: {error}")
            })?;
            let Some(socket) = socket else { continue };
            if !SockRef::from(&socket).is_listener().unwrap_or(false) {
                return Err(format!("the socket {name:?} does not listen (Accept= must be no)"));
            }
            taken.push(socket);
        }
        if taken.is_empty() {
            return Err(match self.sockets.len() {
                0 => "systemd handed no sockets over".to_owned(),
                _ => format!(
                    "systemd handed no socket over as {name:?}, or it is taken already; there are {:?}",
                    self.names
                ),
            });
        }
        Ok(taken)
    }
}

/// A socket that listens.
pub(super) struct Listening {
    pub(super) socket: tokio::net::TcpListener,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Whether connections in its queue are lost when we close it.
    pub(super) is_own: bool,
}

/// Listens on an address, or takes what systemd listens on.
pub(super) fn listen(
    address: &ListenerAddress,
    inherited: &mut Inherited,
) -> Result<Vec<Listening>, Error> {
    let listener = || address.to_string();
    match address {
        ListenerAddress::Bind(address) => {
            let socket = bind(*address).and_then(|socket| adopt(socket, true));
            let socket = socket.map_err(|source| Error::Bind { listener: listener(), source })?;
            Ok(vec![socket])
        }
        ListenerAddress::Systemd(name) => {
            let fault = |problem| Error::Systemd { listener: listener(), problem };
            let sockets = inherited.take(name).map_err(fault)?;
            let sockets = sockets.into_iter().map(|socket| adopt(socket, false));
            let sockets: io::Result<_> = sockets.collect();
            sockets.map_err(|error| fault(error.to_string()))
        }
    }
}

fn adopt(socket: std::net::TcpListener, is_own: bool) -> io::Result<Listening> {
    socket.set_nonblocking(true)?;
    // Connections inherit both.
    let options = SockRef::from(&socket);
    options.set_tcp_nodelay(true)?;
    options
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE))?;
    let address = socket.local_addr()?;
    Ok(Listening { socket: tokio::net::TcpListener::from_std(socket)?, address, is_own })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(address: &str) -> Result<Vec<Listening>, Error> {
        let address = ListenerAddress::Bind(address.parse().unwrap());
        listen(&address, &mut Inherited::none())
    }

    #[tokio::test]
    async fn accepted_connections_do_not_wait_for_more_to_send() {
        let listening = own("127.0.0.1:0").unwrap().remove(0);
        let _client = tokio::net::TcpStream::connect(listening.address).await.unwrap();
        let (accepted, _) = listening.socket.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[tokio::test]
    async fn accepted_connections_are_asked_whether_somebody_is_there() {
        let listening = own("127.0.0.1:0").unwrap().remove(0);
        let _client = tokio::net::TcpStream::connect(listening.address).await.unwrap();
        let (accepted, _) = listening.socket.accept().await.unwrap();
        let options = SockRef::from(&accepted);
        assert!(options.keepalive().unwrap());
        assert_eq!(options.tcp_keepalive_time().unwrap(), KEEP_ALIVE);
        assert_eq!(options.tcp_keepalive_interval().unwrap(), KEEP_ALIVE);
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let listening = own("[::]:0").unwrap().remove(0);
        let address = SocketAddr::from(([127, 0, 0, 1], listening.address.port()));
        tokio::net::TcpStream::connect(address).await.unwrap();
    }

    #[tokio::test]
    async fn an_address_that_no_interface_has_yet_is_listened_on() {
        for address in ["192.0.2.77:0", "[2001:db8::77]:0"] {
            let listening = own(address).unwrap().remove(0);
            assert_eq!(listening.address.ip(), address.parse::<SocketAddr>().unwrap().ip());
        }
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_its_option() {
        let listening = own("127.0.0.1:0").unwrap().remove(0);
        let error = own(&listening.address.to_string()).err().unwrap().to_string();
        assert!(error.contains(&listening.address.to_string()), "{error}");
        assert!(error.contains("[[listener]]"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_socket_of_systemd_is_named_with_its_option() {
        let address = ListenerAddress::Systemd("https".to_owned());
        let error = listen(&address, &mut Inherited::none()).err().unwrap().to_string();
        assert!(error.contains("systemd_socket"), "{error}");
        assert!(error.contains("no sockets"), "{error}");
    }
}
