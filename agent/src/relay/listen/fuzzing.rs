//! What a connection begins with, for fuzzing: `tests/fuzz` sees nothing that is private.

use std::net::SocketAddr;

use futures_util::FutureExt;
use tokio::io::{join, sink};

use super::{
    hello,
    proxy::{self, Proxied},
};

/// A header of the PROXY protocol, and how many bytes follow it. The client is none if the
/// balancer itself is at the other end.
#[must_use]
pub fn proxy_header(mut bytes: &[u8]) -> Option<(Option<SocketAddr>, usize)> {
    // Bytes in memory are not waited for.
    let proxied = proxy::read(&mut bytes).now_or_never()?.ok()?;
    let client = match proxied {
        Proxied::Client(client) => Some(client),
        Proxied::HealthCheck => None,
    };
    Some((client, bytes.len()))
}

/// The name that a ClientHello asks for, if it asks for one, and what is kept of it for
/// whoever goes on.
#[must_use]
pub fn client_hello(bytes: &[u8]) -> Option<(Option<String>, Vec<u8>)> {
    let hello = hello::read(&mut join(bytes, sink())).now_or_never()?.ok()?;
    Some((hello.server_name(), hello.bytes))
}
