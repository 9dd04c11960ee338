//! Requests of clients to a server behind the relay, streamed both ways: Pega in a
//! cloud asks an Exchange server that stands on the premises.
//!
//! Nothing is stored, nothing is held back: each part of a body goes on as it comes,
//! as slowly as the other end takes it. What belongs to the connection is the
//! relay's; everything else is the client's and the server's, and untouched.
//!
//! - [`session`]: the connections to servers that a client's connection owns.
//! - [`binding`]: credentials that hold for a connection.
//! - [`upload`], [`download`]: the bodies.
//! - [`passthrough`]: TLS that is not ours.
//! - [`tunnel`]: bytes that are not ours, of TLS or of a protocol that was changed to.
//!
//! # No identity crosses
//!
//! NTLM and Negotiate authenticate connections. So each connection of a client has
//! connections to servers of its own, from its first request on, whatever is in it:
//! there is no pool that an authenticated connection could get into by mistake. What
//! is seen of credentials decides only what happens when something breaks: then both
//! ends are closed and nothing is repeated.

pub(in crate::relay) mod binding;
pub(in crate::relay) mod download;
pub(in crate::relay) mod passthrough;
pub(in crate::relay) mod session;
pub(in crate::relay) mod tunnel;
pub(in crate::relay) mod upload;
