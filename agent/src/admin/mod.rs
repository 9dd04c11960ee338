//! What people, Prometheus and the command line ask of a running agent.
//!
//! Two listeners share one server. The TCP address has no access control, so it
//! answers only what anybody on the host may know: `/` for people, `/metrics`, `/healthz` and
//! `/readyz`, and where `admin.export` is on `/export`, the list in force. The
//! control socket, which only root, the agent's user and the members of `admin.group` may open, also answers `/v1/status`,
//! `/v1/check`, `/v1/diff`, `/v1/history`, `/v1/allow`, `/v1/events` and `/v1/audit`, as JSON with the stable
//! field names of [`api`], and obeys the orders that are posted to `/v1/order` and `/v1/spool`. Each of them is
//! recorded in an audit log, with whoever gave it.
//!
//! Nothing here can hold up the filter: requests are short, limited in number
//! and in time, and a fault of the server is logged, not fatal.

mod answer;
mod answers;
pub mod api;
mod audit;
mod caller;
pub mod client;
mod health;
mod page;
mod server;
mod socket;

pub use self::{
    audit::{Audit, AuditRecord, Outcome, records as audit_records},
    caller::Caller,
    health::{Health, Part},
    server::{BindError, Control, Recent, Server},
};

#[cfg(test)]
mod tests;
