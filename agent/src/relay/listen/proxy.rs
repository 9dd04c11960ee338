//! The PROXY protocol, version 2: a load balancer says who its client is.
//!
//! Version 1 is refused: it is text of unknown length, and every balancer that
//! sends it can send version 2. Exactly the bytes of the header are read, so that
//! the TLS handshake finds its own untouched.

use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What every header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, and the length of the rest.
const FIXED: usize = 16;

/// The most that may follow it. Addresses take 216 bytes at most; what balancers
/// add is some hundred bytes, or a certificate.
const MOST: usize = 4096;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxied {
    /// This client is at the other end.
    Client(SocketAddr),
    /// The balancer itself is: it looks whether we are well.
    HealthCheck,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection begins with something else, or with version 1.
    Missing,
    /// It cannot be read, is too long, or is not about TCP.
    Malformed,
    /// The connection broke off.
    Left,
}

/// Reads a header.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Proxied, Fault> {
    let mut fixed = [0; FIXED];
    // Byte by byte until it is sure to be a header: a client that sends less and
    // waits for an answer is told at once. There is but one read in practice.
    let mut filled = 0_usize;
    while let Some(rest) = fixed.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await {
            Ok(0) | Err(_) => return Err(Fault::Left),
            Ok(read) => filled = filled.saturating_add(read),
        }
        let seen = filled.min(SIGNATURE.len());
        if fixed.get(..seen) != SIGNATURE.get(..seen) {
            return Err(Fault::Missing);
        }
    }
    let [.., high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MOST {
        return Err(Fault::Malformed);
    }
    let mut header = fixed.to_vec();
    header.resize(FIXED.saturating_add(length), 0);
    let rest = header.get_mut(FIXED..).unwrap_or_default();
    stream.read_exact(rest).await.map_err(|_| Fault::Left)?;
    parse(&header)
}

fn parse(header: &[u8]) -> Result<Proxied, Fault> {
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    let (header, _) = ProxyHeader::parse(header, config).map_err(|_| Fault::Malformed)?;
    match header.proxied_address() {
        // LOCAL, or a family without addresses.
        None => Ok(Proxied::HealthCheck),
        Some(address) if address.protocol == Protocol::Stream => {
            Ok(Proxied::Client(canonical(address.source)))
        }
        Some(_) => Err(Fault::Malformed),
    }
}

/// An IPv4 address that came as an IPv6 one is an IPv4 address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::*;

    fn header(source: &str, destination: &str) -> Vec<u8> {
        let addresses =
            ProxiedAddress::stream(source.parse().unwrap(), destination.parse().unwrap());
        let mut bytes = Vec::new();
        ProxyHeader::with_address(addresses).encode_v2(&mut bytes).unwrap();
        bytes
    }

    async fn read_all(mut bytes: &[u8]) -> (Result<Proxied, Fault>, usize) {
        let result = read(&mut bytes).await;
        (result, bytes.len())
    }

    #[tokio::test]
    async fn the_client_is_read_and_nothing_behind_the_header() {
        for (source, destination) in
            [("192.0.2.7:4711", "198.51.100.1:443"), ("[2001:db8::7]:4711", "[2001:db8::1]:443")]
        {
            let mut bytes = header(source, destination);
            bytes.extend_from_slice(b"hello");
            let client = Proxied::Client(source.parse().unwrap());
            assert_eq!(read_all(&bytes).await, (Ok(client), 5));
        }
    }

    #[tokio::test]
    async fn an_ipv4_address_in_ipv6_is_an_ipv4_address() {
        let bytes = header("[::ffff:192.0.2.7]:4711", "[::ffff:198.51.100.1]:443");
        let client = Proxied::Client("192.0.2.7:4711".parse().unwrap());
        assert_eq!(read_all(&bytes).await.0, Ok(client));
    }

    #[tokio::test]
    async fn a_local_command_is_a_health_check() {
        let mut bytes = Vec::new();
        ProxyHeader::with_local().encode_v2(&mut bytes).unwrap();
        assert_eq!(read_all(&bytes).await.0, Ok(Proxied::HealthCheck));
    }

    #[tokio::test]
    async fn version_1_and_tls_are_no_header() {
        for bytes in [&b"PROXY TCP4 192.0.2.7 198.51.100.1 1 443\r\n"[..], b"\x16\x03\x01"] {
            assert_eq!(read_all(bytes).await.0, Err(Fault::Missing));
        }
    }

    #[tokio::test]
    async fn every_truncation_is_noticed() {
        let bytes = header("192.0.2.7:4711", "198.51.100.1:443");
        for length in 0..bytes.len() {
            assert_eq!(read_all(&bytes[..length]).await.0, Err(Fault::Left), "{length}");
        }
    }

    #[tokio::test]
    async fn a_header_that_is_too_long_or_about_udp_is_malformed() {
        let mut long = header("192.0.2.7:4711", "198.51.100.1:443");
        long[14..16].copy_from_slice(&4097_u16.to_be_bytes());
        assert_eq!(read_all(&long).await.0, Err(Fault::Malformed));
        let mut udp = header("192.0.2.7:4711", "198.51.100.1:443");
        udp[13] = 0x12;
        assert_eq!(read_all(&udp).await.0, Err(Fault::Malformed));
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = block_on(read_all(&bytes));
            let mut signed = SIGNATURE.to_vec();
            signed.extend_from_slice(&bytes);
            let _ = block_on(read_all(&signed));
        }

        #[test]
        fn a_damaged_header_is_read_or_refused(
            damage in proptest::collection::vec((0_usize..28, any::<u8>()), 1..4),
        ) {
            let mut bytes = header("192.0.2.7:4711", "198.51.100.1:443");
            for (index, byte) in damage {
                bytes[index] = byte;
            }
            let _ = block_on(read_all(&bytes));
        }
    }
}
