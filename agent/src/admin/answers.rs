//! What is answered to whom.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Request, StatusCode, body::Incoming};
use jiff::Timestamp;
use prometheus::{Encoder as _, Registry, TextEncoder};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Semaphore;

use super::{
    Audit, AuditRecord, Caller, Control, Health, Outcome,
    answer::{Answer, events, json, response, text},
    api::ExportFormat,
    audit::shown,
    page::page,
};
use crate::allowlist::MAX_IMPORT;

/// Largest order: an import, with every character of it escaped.
const LARGEST_ORDER: usize = 2 * MAX_IMPORT;
/// Readers that follow events at once. Connections are limited too, and commands need some.
const FOLLOWERS: usize = 8;

/// What a listener lets its clients do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    /// See metrics and health.
    Look,
    /// And the list.
    Export,
    /// And everything else, and change it.
    Order,
}

/// Answers requests of one listener.
pub(super) struct Answers {
    registry: Registry,
    health: Health,
    audit: Audit,
    control: Arc<dyn Control>,
    may: May,
    followers: Arc<Semaphore>,
}

impl Answers {
    pub(super) fn new(
        registry: Registry,
        health: Health,
        audit: Audit,
        control: Arc<dyn Control>,
        may: May,
    ) -> Self {
        Self {
            registry,
            health,
            audit,
            control,
            may,
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
        }
    }

    /// Whether orders are taken, which may take their time.
    pub(super) fn may_order(&self) -> bool {
        self.may == May::Order
    }

    /// Answers a request; on the control socket also whoever must not be listened to.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        caller: Option<&(Caller, bool)>,
    ) -> Answer {
        let path = request.uri().path();
        match caller {
            Some((caller, false)) => return self.deny(&request, caller).await,
            Some((caller, true)) if request.method() == Method::POST => match path {
                "/v1/order" => return self.obey(request, caller, |o| self.control.obey(o)).await,
                "/v1/spool" => return self.obey(request, caller, |o| self.control.spool(o)).await,
                "/v1/upstream" => {
                    return self.obey(request, caller, |o| self.control.upstream(o)).await;
                }
                _ => {}
            },
            _ => {}
        }
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is understood\n");
        }
        let query = request.uri().query();
        match path {
            "/" => page(&self.control.status()),
            "/metrics" => self.metrics(),
            "/healthz" if self.health.is_alive() => text(StatusCode::OK, "ok\n"),
            "/healthz" => text(StatusCode::SERVICE_UNAVAILABLE, "the main loop does not answer\n"),
            "/readyz" => self.readiness(),
            "/export" if self.may != May::Look => self.export(query),
            _ if self.may == May::Order => self.look(path, query),
            _ => text(StatusCode::NOT_FOUND, "there are /, /metrics, /healthz and /readyz\n"),
        }
    }

    /// What the control socket answers besides.
    fn look(&self, path: &str, query: Option<&str>) -> Answer {
        match path {
            "/v1/status" => json(&self.control.status()),
            "/v1/check" => match values(query, "address").next().and_then(|a| a.parse().ok()) {
                Some(address) => json(&self.control.check(address)),
                None => text(StatusCode::BAD_REQUEST, "address=IP is missing or malformed\n"),
            },
            "/v1/diff" => json(&self.control.diff()),
            "/v1/audit" => match self.control.audit() {
                Ok(records) => json(&records),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
            },
            "/v1/events" => self.events(query),
            "/v1/allow" => json(&self.control.temporary()),
            "/v1/history" => match self.control.history() {
                Ok(history) => json(&history),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
            },
            _ => text(StatusCode::NOT_FOUND, "there is no such page\n"),
        }
    }

    /// Has an order obeyed, and records it.
    async fn obey<Order: DeserializeOwned + Serialize, Obeyed: Serialize>(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
        obeyed: impl FnOnce(Order) -> BoxFuture<'static, Result<Obeyed, String>>,
    ) -> Answer {
        let order: Order = match read(request).await {
            Ok(order) => order,
            Err(answer) => return answer,
        };
        let at = Timestamp::now();
        let shown = shown(&order);
        let result = obeyed(order).await;
        let (outcome, message) = match &result {
            Ok(_) => (Outcome::Done, None),
            Err(problem) => (Outcome::Refused, Some(problem.clone())),
        };
        // To list changes nothing, and tells no content.
        if shown.get("order").is_none_or(|order| order != "list") {
            let caller = caller.clone();
            self.audit.record(AuditRecord { at, caller, order: shown, outcome, message }).await;
        }
        match result {
            Ok(obeyed) => json(&obeyed),
            Err(problem) => text(StatusCode::CONFLICT, problem),
        }
    }

    async fn deny(&self, request: &Request<Incoming>, caller: &Caller) -> Answer {
        let order = format!("{} {}", request.method(), request.uri().path());
        self.audit
            .record(AuditRecord {
                at: Timestamp::now(),
                caller: caller.clone(),
                order: order.into(),
                outcome: Outcome::Denied,
                message: None,
            })
            .await;
        let problem = "only root, the agent's user and the members of admin.group are listened to";
        text(StatusCode::FORBIDDEN, problem)
    }

    fn events(&self, query: Option<&str>) -> Answer {
        let follow = values(query, "follow").next() == Some("true");
        match Arc::clone(&self.followers).try_acquire_owned() {
            Ok(slot) => events(self.control.events(), follow, slot),
            Err(_) => {
                let problem = format!("{FOLLOWERS} readers follow the events already\n");
                text(StatusCode::SERVICE_UNAVAILABLE, problem)
            }
        }
    }

    fn export(&self, query: Option<&str>) -> Answer {
        let format = match values(query, "format").next() {
            None => Some(ExportFormat::Plain),
            Some(name) => ExportFormat::ALL.into_iter().find(|format| format.name() == name),
        };
        let Some(format) = format else {
            return text(StatusCode::BAD_REQUEST, "format is plain, nft, ipset or json\n");
        };
        let sources: Vec<_> = values(query, "source").map(str::to_owned).collect();
        match self.control.export(format, &sources) {
            Ok(page) if format == ExportFormat::Json => {
                response(StatusCode::OK, "application/json", page.into_bytes())
            }
            Ok(page) => text(StatusCode::OK, page),
            Err(problem) => text(StatusCode::BAD_REQUEST, problem),
        }
    }

    fn metrics(&self) -> Answer {
        let mut page = Vec::new();
        let encoder = TextEncoder::new();
        match encoder.encode(&self.registry.gather(), &mut page) {
            Ok(()) => response(StatusCode::OK, encoder.format_type(), page),
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode metrics: {error}\n"))
            }
        }
    }

    fn readiness(&self) -> Answer {
        let pending = self.health.pending();
        if pending.is_empty() {
            text(StatusCode::OK, "ready\n")
        } else {
            let message = format!("waiting for {}\n", pending.join(", "));
            text(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }
}

/// Reads an order.
async fn read<Order: DeserializeOwned>(request: Request<Incoming>) -> Result<Order, Answer> {
    let body = match Limited::new(request.into_body(), LARGEST_ORDER).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Err(text(StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n"))),
    };
    serde_json::from_slice(&body)
        .map_err(|error| text(StatusCode::BAD_REQUEST, format!("not an order: {error}\n")))
}

/// The values of a key in a query. None of ours needs escapes.
fn values<'a>(query: Option<&'a str>, key: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(move |(name, _)| *name == key).map(|(_, value)| value)
}
