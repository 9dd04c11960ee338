//! Datagrams that come over a wire: the other end of the pair, or another host's card.

use std::{
    os::fd::AsRawFd as _,
    process::Command,
    time::{Duration, Instant},
};

use exogate_ebpf::verdict::{Action, Family, Reason};
use exogate_tests::process::check;
use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, MsgFlags, bind, sendto},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{PATIENCE, verdict::spec};

/// `ETH_P_ALL` of linux/if_ether.h.
const ALL: u16 = 3;

/// Sends a stranger's datagram and then a listed one to `gate0` from its other end. Only the second one may
/// come out of the filter on `gate0`.
pub(crate) fn a_listed_datagram_passes_and_a_strange_one_does_not() {
    let other_end = other_end();
    for end in ["gate0", &other_end] {
        check(Command::new("ip").args(["link", "set", end, "up"]), "").unwrap();
    }
    let [inside, outside] = ["gate0", &other_end].map(link_address);
    let receiver = socket();
    bind(receiver.as_raw_fd(), &inside).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let strange = spec::datagram((Action::Drop, Reason::Unlisted, Family::Ipv4));
    let listed = spec::datagram((Action::Pass, Reason::Allowed, Family::Ipv4));
    let sender = socket();
    for frame in [&strange, &listed] {
        sendto(sender.as_raw_fd(), frame, &outside, MsgFlags::empty()).unwrap();
    }
    // Both ends of the pair say something of their own too.
    let begin = Instant::now();
    let mut buffer = [0; 2048];
    loop {
        assert!(begin.elapsed() < PATIENCE, "the listed datagram did not pass");
        let Ok(length) =
            nix::sys::socket::recv(receiver.as_raw_fd(), &mut buffer, MsgFlags::empty())
        else {
            continue;
        };
        let frame = buffer.get(..length).unwrap();
        assert_ne!(frame, strange, "the stranger's datagram passed");
        if frame == listed {
            return;
        }
    }
}

fn socket() -> Socket {
    let protocol = Protocol::from(i32::from(ALL.to_be()));
    Socket::new(Domain::from(nix::libc::AF_PACKET), Type::RAW, Some(protocol)).unwrap()
}

/// The name of the other end of `gate0`: an old busybox leaves it to the kernel.
pub(crate) fn other_end() -> String {
    let mut names = getifaddrs().unwrap().map(|found| found.interface_name);
    names.find(|name| name == "gate1" || name.starts_with("veth")).unwrap()
}

/// The address that a packet socket knows an interface by.
fn link_address(interface: &str) -> LinkAddr {
    let addresses = getifaddrs().unwrap().filter(|found| found.interface_name == interface);
    let mut links = addresses.filter_map(|found| found.address?.as_link_addr().copied());
    links.next().unwrap()
}
