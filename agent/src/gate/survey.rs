//! What can be seen from outside, by a process that manages no interface: pins, drivers
//! and programs. Nothing is locked and nothing is changed.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
};

use aya::{
    maps::MapData,
    programs::{
        ProgramInfo,
        links::{FdLink, PinnedLink},
    },
};
use exogate_ebpf::abi::{ABI_VERSION, map};

use super::{
    Error,
    error::{has_capabilities, kernel_release},
    pins::{self, LINK},
    tables,
};

/// What is pinned for one interface.
#[derive(Debug)]
pub struct Pinned {
    /// The number of the interface.
    pub index: u32,
    /// The program of the pinned link; none if no link is pinned.
    pub link: Option<u32>,
    /// What programs and maps are pinned beside it.
    pub generations: Vec<PinnedGeneration>,
}

/// A generation of pinned maps.
#[derive(Debug)]
pub struct PinnedGeneration {
    /// The name of its directory.
    pub name: String,
    /// The version of the ABI of its maps, where the name says one.
    pub abi: Option<u32>,
}

/// All that is pinned below a pin directory.
///
/// # Errors
///
/// If a pin may not be opened or cannot be read.
pub fn pinned(pin_directory: &Path) -> Result<Vec<Pinned>, Error> {
    pins::interfaces(pin_directory)?
        .into_iter()
        .map(|index| {
            let directory = pins::directory(pin_directory, index);
            let path = directory.join(LINK);
            let link = path.exists().then(|| link_program(&path)).transpose()?;
            let generations = pins::names(&directory)?
                .into_iter()
                .filter(|name| name != LINK)
                .map(|name| PinnedGeneration { abi: abi(&name), name })
                .collect();
            Ok(Pinned { index, link, generations })
        })
        .collect()
}

/// The numbers of the interfaces on which the filter in force drops whatever is refused, also
/// what is only passing through: it enforces, and guards all destinations.
///
/// # Errors
///
/// If a pin may not be opened or cannot be read.
pub fn enforced_everywhere(pin_directory: &Path) -> Result<Vec<u32>, Error> {
    let mut indexes = Vec::new();
    for Pinned { index, link, generations } in pinned(pin_directory)? {
        let controls = generations
            .iter()
            .filter(|generation| link.is_some() && generation.abi == Some(ABI_VERSION))
            .map(|generation| pins::directory(pin_directory, index).join(&generation.name))
            .map(|generation| generation.join(map::CONTROL))
            .filter(|path| path.exists());
        for path in controls {
            let map = MapData::from_pin(&path)
                .map_err(|error| Error::bpf("opening a pinned map", error))?;
            if tables::drops_everywhere(map.fd().as_fd())? {
                indexes.push(index);
            }
        }
    }
    Ok(indexes)
}

fn link_program(path: &Path) -> Result<u32, Error> {
    let link = PinnedLink::from_pin(path)
        .map_err(|error| Error::bpf("opening the pinned link", error))
        .map(FdLink::from)?;
    let info = link.info().map_err(|error| Error::bpf("asking about the pinned link", error))?;
    Ok(info.program_id())
}

/// `abi1-0` is of version 1.
fn abi(name: &str) -> Option<u32> {
    name.strip_prefix("abi")?.split('-').next()?.parse().ok()
}

/// Whether a directory is, or would be made, on a BPF file system.
///
/// # Errors
///
/// If the system does not say.
pub fn is_on_bpf_file_system(directory: &Path) -> Result<bool, Error> {
    pins::is_bpf_file_system(pins::existing(directory))
}

/// Whether this process has what loading and attaching need.
#[must_use]
pub fn may_attach() -> bool {
    has_capabilities()
}

/// `uname -r`.
#[must_use]
pub fn kernel() -> String {
    kernel_release()
}

/// The kernel's name of a program, if this process may ask (CAP_SYS_ADMIN).
#[must_use]
pub fn program_name(id: u32) -> Option<String> {
    let is_it = |info: &ProgramInfo| info.id() == id;
    let info = aya::programs::loaded_programs().filter_map(Result::ok).find(is_it)?;
    info.name_as_str().map(str::to_owned)
}

/// `ethtool_drvinfo` of linux/ethtool.h.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

const _: () = assert!(size_of::<DriverInfo>() == 196);

const ETHTOOL_GDRVINFO: u32 = 3;

/// The driver of an interface.
///
/// # Errors
///
/// If it does not say.
pub fn driver(interface: &str) -> io::Result<String> {
    let socket = OwnedFd::from(std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?);
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len();
    if interface.len() >= room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (target, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *target = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast::<c_void>().cast();
    // SAFETY: the request names an interface, ends with a zero and points to the structure that
    // the command of its first word wants; both live longer than the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let name = info.driver.iter().take_while(|byte| **byte != 0).copied().collect();
    String::from_utf8(name).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_generation_says_its_abi() {
        assert_eq!(abi("abi1-0"), Some(1));
        assert_eq!(abi("abi12-345"), Some(12));
        assert_eq!(abi("something"), None);
    }

    #[test]
    fn an_interface_without_a_driver_or_a_name_is_an_error() {
        assert!(driver("").is_err());
        assert!(driver("a-name-that-is-much-too-long").is_err());
    }
}
