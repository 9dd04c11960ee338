//! Frames that the gate passes because it cannot see into them.
//!
//! PPPoE and MPLS wrap IP packets, and the gate judges what is Ethernet or bare IP. Where an
//! edge host receives them, a stranger's packets pass it unseen. They are listened for with a
//! packet socket each; the kernel collects while something else is done.

use std::{io, os::fd::AsRawFd as _, time::Duration};

use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

use super::Finding;

/// EtherTypes, with what they are.
const KINDS: [(u16, &str); 3] = [(0x8864, "PPPoE"), (0x8847, "MPLS"), (0x8848, "MPLS")];
/// Frames that are counted at most.
const MOST: usize = 10_000;

/// Sockets that frames are collected in.
pub(super) struct Listening(io::Result<Vec<(Socket, &'static str)>>);

impl Listening {
    pub(super) fn start() -> Self {
        let open = |(ether_type, name): (u16, &'static str)| {
            let domain = Domain::from(libc::AF_PACKET);
            let protocol = Protocol::from(i32::from(ether_type.to_be()));
            let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
            socket.set_nonblocking(true)?;
            Ok((socket, name))
        };
        Self(KINDS.into_iter().map(open).collect())
    }
}

/// What came in on these interfaces.
pub(super) fn findings(
    Listening(sockets): Listening,
    interfaces: &[u32],
    listened: Duration,
) -> Vec<Finding> {
    let sockets = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            return vec![Finding::warning(
                "frames",
                format!("cannot listen for PPPoE and MPLS frames: {error}"),
                "run this command as root",
            )];
        }
    };
    let seen: Vec<_> = sockets
        .iter()
        .map(|(socket, name)| (*name, count(socket, interfaces)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let seconds = listened.as_secs_f32();
    if seen.is_empty() {
        let message = format!("no PPPoE or MPLS frame within {seconds} s");
        return vec![Finding::ok("frames", message)];
    }
    seen.into_iter()
        .map(|(name, count)| {
            let message = format!(
                "{count} {name} frames within {seconds} s, which pass the gate: it does not see \
                 into them"
            );
            let next = match name {
                "PPPoE" => "filter on the ppp interface that they become",
                _ => "end the MPLS path before this host",
            };
            Finding::failure("frames", message, next)
        })
        .collect()
}

fn count(socket: &Socket, interfaces: &[u32]) -> usize {
    let mut byte = [0; 1];
    let mut count = 0usize;
    for _ in 0..MOST {
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut byte) {
            Ok((_, Some(from))) => {
                let index = u32::try_from(from.ifindex()).unwrap_or(0);
                count = count.saturating_add(usize::from(interfaces.contains(&index)));
            }
            Ok((_, None)) => {}
            Err(_) => break,
        }
    }
    count
}
