//! Network interfaces as the kernel describes them, over rtnetlink.
//!
//! Not over /sys, which shows the namespace it was mounted in, not the one this
//! process is in.

use exogate_ebpf::packet::LinkLayer;
use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, LinkGetRequest,
    packet_route::link::{
        LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
    },
};

use tokio::task::JoinHandle;

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

/// One of all interfaces, with what it takes to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The kernel's number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it leads nowhere but to this host.
    pub loopback: bool,
    /// Whether its packets can be judged.
    pub supported: bool,
}

/// All interfaces of this network namespace.
///
/// # Errors
///
/// [`Error::Netlink`].
pub async fn list() -> Result<Vec<Listed>, Error> {
    const WHAT: &str = "all interfaces";
    let (connection, handle) = connect(WHAT)?;
    let found = handle.link().get().execute().map_ok(|message| Listed {
        index: message.header.index,
        name: name(&message),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        supported: link_layer(message.header.link_layer_type).is_ok(),
    });
    let found = found.try_collect().await;
    connection.abort();
    found.map_err(|error| netlink(WHAT, error))
}

/// A connection, which ends with the handle.
fn connect(what: &str) -> Result<(JoinHandle<()>, Handle), Error> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| netlink(what, error))?;
    Ok((tokio::spawn(connection), handle))
}

fn netlink(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Netlink { what: what.to_owned(), source: Box::new(source) }
}

async fn query(
    what: &str,
    select: impl FnOnce(LinkGetRequest) -> LinkGetRequest,
) -> Result<Option<Interface>, Error> {
    let (connection, handle) = connect(what)?;
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
        Err(error) => Err(netlink(what, error)),
    }
}

fn interface(message: &LinkMessage) -> Result<Interface, Error> {
    let name = name(message);
    let mut mtu = 0;
    let mut xdp = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(value) => mtu = *value,
            LinkAttribute::Xdp(values) => xdp = attachment(values),
            _ => {}
        }
    }
    let link_layer = match link_layer(message.header.link_layer_type) {
        Ok(link_layer) => link_layer,
        Err(kind) => return Err(Error::UnsupportedInterface { name, kind: kind.to_string() }),
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

fn name(message: &LinkMessage) -> String {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// How its frames begin; or its kind, if exogate cannot read them.
fn link_layer(kind: LinkLayerType) -> Result<LinkLayer, LinkLayerType> {
    match kind {
        LinkLayerType::Ether | LinkLayerType::Loopback => Ok(LinkLayer::Ethernet),
        LinkLayerType::None
        | LinkLayerType::Ppp
        | LinkLayerType::Rawip
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre => Ok(LinkLayer::None),
        other => Err(other),
    }
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
