//! Network interfaces as the kernel describes them, over rtnetlink.
//!
//! Not over /sys, which shows the namespace it was mounted in, not the one this
//! process is in.

use exogate_ebpf::packet::LinkLayer;
use futures_util::TryStreamExt as _;
use rtnetlink::{
    LinkGetRequest,
    packet_route::link::{
        LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
    },
};

use crate::gate::{Error, Mode};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number. It survives a rename, but not a re-creation.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether its frames begin with an Ethernet header.
    pub link_layer: LinkLayer,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// The attached XDP program, if any.
    pub xdp: Option<XdpAttachment>,
}

/// An attached XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpAttachment {
    /// The kernel's id of the program.
    pub program: u32,
    /// How it is attached.
    pub mode: Mode,
}

/// The interface with a name.
///
/// # Errors
///
/// [`Error::UnknownInterface`] or [`Error::Netlink`].
pub async fn find(name: &str) -> Result<Interface, Error> {
    query(name, |request| request.match_name(name))
        .await?
        .ok_or_else(|| Error::UnknownInterface { name: name.to_owned() })
}

/// The interface with a number, if there is one.
///
/// # Errors
///
/// [`Error::Netlink`].
pub async fn find_index(index: u32) -> Result<Option<Interface>, Error> {
    query(&format!("interface {index}"), |request| request.match_index(index)).await
}

async fn query(
    what: &str,
    select: impl FnOnce(LinkGetRequest) -> LinkGetRequest,
) -> Result<Option<Interface>, Error> {
    let netlink = |source: Box<dyn std::error::Error + Send + Sync>| Error::Netlink {
        what: what.to_owned(),
        source,
    };
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| netlink(Box::new(error)))?;
    let connection = tokio::spawn(connection);
    let answer = std::pin::pin!(select(handle.link().get()).execute()).try_next().await;
    connection.abort();
    match answer {
        Ok(Some(message)) => interface(&message).map(Some),
        Ok(None) => Ok(None),
        Err(rtnetlink::Error::NetlinkError(error))
            if [libc::ENODEV, libc::ENXIO].contains(&error.raw_code().wrapping_abs()) =>
        {
            Ok(None)
        }
        Err(error) => Err(netlink(Box::new(error))),
    }
}

fn interface(message: &LinkMessage) -> Result<Interface, Error> {
    let mut name = String::new();
    let mut mtu = 0;
    let mut xdp = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name.clone_from(value),
            LinkAttribute::Mtu(value) => mtu = *value,
            LinkAttribute::Xdp(values) => xdp = attachment(values),
            _ => {}
        }
    }
    let link_layer = match message.header.link_layer_type {
        LinkLayerType::Ether | LinkLayerType::Loopback => LinkLayer::Ethernet,
        LinkLayerType::None
        | LinkLayerType::Ppp
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre => LinkLayer::None,
        other => return Err(Error::UnsupportedInterface { name, kind: other.to_string() }),
    };
    Ok(Interface {
        index: message.header.index,
        name,
        link_layer,
        mtu,
        up: message.header.flags.contains(LinkFlags::Up),
        xdp,
    })
}

fn attachment(values: &[LinkXdp]) -> Option<XdpAttachment> {
    let mode = values.iter().find_map(|value| match value {
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Mode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(Mode::Offloaded),
        LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Multiple) => Some(Mode::Native),
        _ => None,
    })?;
    let program = values.iter().find_map(|value| match value {
        LinkXdp::ProgId(id)
        | LinkXdp::DrvProgId(id)
        | LinkXdp::SkbProgId(id)
        | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    })?;
    Some(XdpAttachment { program, mode })
}
