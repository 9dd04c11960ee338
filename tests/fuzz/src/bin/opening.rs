//! What a connection begins with: a balancer's PROXY header, and the ClientHello of TLS
//! that may be somebody else's.
//!
//! Seeds: tests/fuzz/seeds/opening
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use exogate::relay::listen::fuzzing::{client_hello, proxy_header};
use libfuzzer_sys::fuzz_target;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fuzz_target!(|bytes: &[u8]| {
    let rest = match proxy_header(bytes) {
        Some((client, left)) => {
            let (header, rest) = bytes.split_at(bytes.len() - left);
            assert!(header.starts_with(SIGNATURE), "only a header is taken for one");
            assert_eq!(header[12] >> 4, 2, "version 2");
            let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
            assert_eq!(header.len(), 16 + length, "nothing behind it is read");
            if let Some(client) = client {
                let (address, port): (IpAddr, _) = match header[13] {
                    0x11 => (Ipv4Addr::from_octets(array(&header[16..])).into(), 24),
                    0x21 => (Ipv6Addr::from_octets(array(&header[16..])).into(), 48),
                    other => panic!("{other:#x} is not TCP"),
                };
                assert_eq!(header[12], 0x21, "a client is behind PROXY, not LOCAL");
                assert_eq!(client.ip(), address.to_canonical());
                assert_eq!(client.port().to_be_bytes(), header[port..port + 2]);
            }
            rest
        }
        None => bytes,
    };
    if let Some((name, kept)) = client_hello(rest) {
        assert!(rest.starts_with(&kept), "what goes on is what came");
        if let Some(name) = name {
            assert!((1..=253).contains(&name.len()), "{name:?}");
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
            assert!(!name.parse::<IpAddr>().is_ok(), "an address is no name");
        }
    }
});

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes[..N].try_into().unwrap()
}
