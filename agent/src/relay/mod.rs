//! The relay: what the gate lets through is received, checked, made durable and
//! passed on.
//!
//! Microsoft deletes, delays or drops when a listener is slow or away; the
//! server behind it restarts, upgrades and stalls. The relay stands between
//! them. It knows nothing of BPF and nothing of address lists: whether a source
//! may speak is asked of the [`listen::Admission`] that it is given.
//!
//! - [`listen`]: TCP, PROXY protocol, TLS, HTTP/1.1 and HTTP/2, with limits; and
//!   the draining of all of it.
//! - [`route`]: host and path to a route; what is checked is what is forwarded.
//! - [`graph`], [`ews`]: what a request of each kind has to be, and its answer.
//! - [`secret`]: values that senders have to know.
//! - [`spool`]: durable, bounded, in order.
//! - [`deliver`]: from the spool to the upstream, again and again.
//! - [`upstream`]: pools of servers: health, fail-over, credentials.
//!
//! # When things fail
//!
//! What cannot be made durable is not accepted: 503, and Microsoft repeats it.
//! What was accepted is delivered at least once, or becomes a dead letter that
//! an operator can see and replay. An upstream that is away costs nothing but
//! time and room in the spool.

pub mod deliver;
pub mod ews;
pub mod graph;
pub mod listen;
pub mod route;
pub mod secret;
pub mod spool;
pub mod upstream;

use http_body_util::combinators::BoxBody;
use hyper::body::Bytes;

/// An error of whatever brings a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body, wherever it comes from.
pub type Body = BoxBody<Bytes, BoxError>;
