//! `[[listener]]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde::Deserialize;

use super::super::value::{self, Port, Prefix, Size};

/// Where requests come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What is listened on.
    pub address: ListenerAddress,
    /// Certificates, chosen by the name that a client asks for. The first one is
    /// shown to a client that names none, or an unknown one.
    pub certificates: Vec<Certificate>,
    /// Whether clients show certificates.
    pub client_certificates: ClientCertificates,
    /// Whether HTTP/2 is offered beside HTTP/1.1.
    pub http2: bool,
    /// The oldest version of TLS that is spoken.
    pub min_tls: TlsVersion,
    /// The guarded TCP port whose sources may speak here; the listener's own port
    /// if not given.
    pub guard: Option<u16>,
    /// Load balancers: their connections begin with a PROXY protocol v2 header,
    /// and nobody else's may. The address in it is the source that is judged.
    pub trusted_proxies: Vec<IpNet>,
    /// Bounds of what a client may take.
    pub limits: Limits,
}

/// What a listener listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerAddress {
    /// An address of this host.
    Bind(SocketAddr),
    /// A socket that systemd hands over, by its name (`FileDescriptorName=`).
    Systemd(String),
}

impl std::fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(address) => address.fmt(f),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// Files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// PEM file: the certificate, then those that vouch for it.
    pub chain: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
}

/// Whether clients show certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    Off,
    /// They may. One that is shown must be vouched for by this PEM file.
    Optional(PathBuf),
    /// They must, and this PEM file must vouch for them.
    Required(PathBuf),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

/// Bounds of what the clients of a listener may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Connections of one source at once.
    pub source_connections: Option<usize>,
    /// Requests of one source in a second.
    pub source_requests: Option<u32>,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// From the acceptance of a connection to the end of its TLS handshake.
    pub handshake_timeout: Duration,
    /// From there, or from the first byte of a further request, to the end of the
    /// request's head.
    pub header_timeout: Duration,
    /// From the head to the end of the body.
    pub body_timeout: Duration,
    /// How long a connection may stay without a request.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            source_connections: None,
            source_requests: None,
            header_bytes: 32 << 10,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// `[[listener]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawListener {
    /// An address and port, such as `0.0.0.0:443` or `[::]:443`.
    address: Option<SocketAddr>,
    /// Or the name of a socket that systemd hands over.
    systemd_socket: Option<String>,
    /// Certificates with their keys.
    #[serde(default)]
    certificates: Vec<Certificate>,
    /// PEM file with the authorities of client certificates.
    client_ca_file: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    #[serde(default)]
    client_certificate_required: bool,
    /// Whether HTTP/2 is offered.
    http2: Option<bool>,
    /// `"1.2"` or `"1.3"`.
    #[serde(default)]
    min_tls: TlsVersion,
    /// The guarded port whose sources may speak here.
    guard: Option<Port>,
    /// Load balancers that speak PROXY protocol v2.
    #[serde(default)]
    trusted_proxies: Vec<Prefix>,
    /// Connections at once.
    connections: Option<u32>,
    /// Connections of one source at once.
    source_connections: Option<u32>,
    /// Requests of one source in a second.
    source_requests: Option<u32>,
    /// Largest head of a request.
    header_size: Option<Size>,
    /// Limit for a TLS handshake.
    #[serde(default, deserialize_with = "value::some_duration")]
    handshake_timeout: Option<Duration>,
    /// Limit for the head of a request.
    #[serde(default, deserialize_with = "value::some_duration")]
    header_timeout: Option<Duration>,
    /// Limit for the body of a request.
    #[serde(default, deserialize_with = "value::some_duration")]
    body_timeout: Option<Duration>,
    /// How long a connection may stay without a request.
    #[serde(default, deserialize_with = "value::some_duration")]
    idle_timeout: Option<Duration>,
}

impl RawListener {
    pub(super) fn define(
        &self,
        guarded: &[u16],
        proxies: bool,
        passes: bool,
    ) -> Result<Listener, String> {
        let address = match (self.address, &self.systemd_socket) {
            (Some(address), None) => ListenerAddress::Bind(address),
            (None, Some(name)) => ListenerAddress::Systemd(name.clone()),
            _ => return Err("a listener needs either an address or a systemd_socket".to_owned()),
        };
        // Where TLS is passed on there may be none of our own.
        if self.certificates.is_empty() && !passes {
            return Err(
                "a listener needs certificates = [{ chain = \"...\", key = \"...\" }]".to_owned()
            );
        }
        let guard = self.guard.map(|Port(port)| port);
        let port = match (guard, &address) {
            (Some(port), _) => Some(port),
            (None, ListenerAddress::Bind(address)) => Some(address.port()),
            // Known once systemd has handed it over, and checked then.
            (None, ListenerAddress::Systemd(_)) => None,
        };
        if let Some(port) = port.filter(|port| !guarded.contains(port)) {
            return Err(format!(
                "no guard stands on TCP port {port}, so nothing says who may speak to this \
                 listener; add the port to a [[guard]], or name another one with guard = PORT"
            ));
        }
        if proxies && self.http2 == Some(true) {
            return Err(
                "http2 cannot be offered where there are routes of kind \"proxy\": NTLM and \
                 Negotiate authenticate a connection, and the protocol is chosen before anybody \
                 knows whether they will be used"
                    .to_owned(),
            );
        }
        let client_certificates = match (&self.client_ca_file, self.client_certificate_required) {
            (None, false) => ClientCertificates::Off,
            (None, true) => {
                return Err("client_certificate_required needs a client_ca_file".to_owned());
            }
            (Some(path), false) => ClientCertificates::Optional(path.clone()),
            (Some(path), true) => ClientCertificates::Required(path.clone()),
        };
        Ok(Listener {
            address,
            certificates: self.certificates.clone(),
            client_certificates,
            http2: self.http2.unwrap_or(!proxies),
            min_tls: self.min_tls,
            guard,
            trusted_proxies: self.trusted_proxies.iter().map(|Prefix(prefix)| *prefix).collect(),
            limits: self.limits()?,
        })
    }

    fn limits(&self) -> Result<Limits, String> {
        let defaults = Limits::default();
        let connections = match self.connections {
            None => defaults.connections,
            Some(number @ 1..=1_000_000) => usize::try_from(number).unwrap_or(usize::MAX),
            Some(_) => return Err("connections must be 1 to 1000000".to_owned()),
        };
        let header_bytes = match self.header_size {
            None => defaults.header_bytes,
            // Below 8 KiB the HTTP library does not go.
            Some(Size(size @ 8_192..=1_048_576)) => size,
            Some(_) => return Err("header_size must be \"8KiB\" to \"1MiB\"".to_owned()),
        };
        let time = |given: Option<Duration>, default: Duration, name: &str| match given {
            None => Ok(default),
            Some(given) if (1..=3600).contains(&given.as_secs()) => Ok(given),
            Some(_) => Err(format!("{name} must be \"1s\" to \"1h\"")),
        };
        let Limits { handshake_timeout, header_timeout, body_timeout, idle_timeout, .. } = defaults;
        if self.source_connections == Some(0) || self.source_requests == Some(0) {
            return Err("source_connections and source_requests must be at least 1".to_owned());
        }
        let source_connections = self.source_connections.and_then(|most| most.try_into().ok());
        Ok(Limits {
            connections,
            source_connections,
            source_requests: self.source_requests,
            header_bytes,
            handshake_timeout: time(
                self.handshake_timeout,
                handshake_timeout,
                "handshake_timeout",
            )?,
            header_timeout: time(self.header_timeout, header_timeout, "header_timeout")?,
            body_timeout: time(self.body_timeout, body_timeout, "body_timeout")?,
            idle_timeout: time(self.idle_timeout, idle_timeout, "idle_timeout")?,
        })
    }
}
