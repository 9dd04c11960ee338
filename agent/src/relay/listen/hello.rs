//! Reads what a client of TLS says first, to see whom it wants to speak to.
//!
//! The bytes are kept: they go on to a server whose TLS it is, or into our own
//! handshake. What is no such message ends the connection.

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::connection::Outcome;

/// The most that is read of it. A record holds 16 KiB; a ClientHello with keys for
/// quantum computers has about two.
const LONGEST: usize = 64 << 10;

/// What a client has said.
pub(super) struct Hello {
    /// All bytes that came.
    pub(super) bytes: Vec<u8>,
    /// The same, as the beginning of our own handshake.
    pub(super) accepted: Accepted,
}

impl Hello {
    /// The name that is asked for, in lower case.
    pub(super) fn server_name(&self) -> Option<String> {
        self.accepted.client_hello().server_name().map(str::to_ascii_lowercase)
    }
}

/// Reads it. Bounded in time by the caller.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Hello, Outcome> {
    let mut acceptor = Acceptor::default();
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(Outcome::Left),
            Ok(_) if bytes.len() > LONGEST => return Err(Outcome::TlsFailed),
            Ok(_) => {}
        }
        let mut new = bytes.get(before..).unwrap_or_default();
        while !new.is_empty() {
            // It takes from memory as much as it has room for.
            if acceptor.read_tls(&mut new).map_or(true, |read| read == 0) {
                return Err(Outcome::TlsFailed);
            }
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Hello { bytes, accepted }),
            Ok(None) => {}
            Err((_, mut alert)) => {
                let mut said = Vec::new();
                if alert.write_all(&mut said).is_ok() {
                    // The client may be gone already.
                    let _ = stream.write_all(&said).await;
                }
                return Err(Outcome::TlsFailed);
            }
        }
    }
}
