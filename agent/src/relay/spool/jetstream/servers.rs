//! The connection, and the streams and buckets behind it.
//!
//! | name | kind | holds | limits |
//! |---|---|---|---|
//! | `PREFIX_waiting` | stream | records that wait, one subject each | `max_size`; refuses when full; `retry_for` and `keep_for` together |
//! | `PREFIX_dead` | stream | dead letters, one subject each | `keep_for` |
//! | `PREFIX_marks` | bucket | `once` keys and facts, as digests | an eighth of `max_size`, drops the oldest; `keep_for` |
//! | `PREFIX_lease` | bucket | who delivers | one entry |
//!
//! What is not there is made. Limits that differ from the configuration are
//! changed. Anything else that differs is somebody else's decision or data: then
//! the spool does not open, and says what differs.

use std::time::Duration;

use async_nats::{
    Client, ConnectOptions, Event, ServerAddr,
    connection::State,
    jetstream::{
        Context, ErrorCode,
        context::{ContextBuilder, GetStreamErrorKind},
        kv,
        response::Response,
        stream::{self, Config, DeleteStatus, DiscardPolicy, RetentionPolicy, StorageType, Stream},
    },
};
use serde_json::json;

use super::{super::Error, Metrics};
use crate::config::{Jetstream, Spool};

/// The longest that the servers may need for an answer.
pub(super) const REQUEST: Duration = Duration::from_secs(5);
/// The longest that the first connection may take, over all servers.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest that it may take to one server.
const CONNECT_ONE: Duration = Duration::from_secs(3);
/// A server that leaves two pings unanswered is given up.
const PING: Duration = Duration::from_secs(2);
/// The pause before the second attempt to connect again, and each after it.
const RECONNECT: Duration = Duration::from_millis(250);
/// Room for the marks, as a part of that for records.
const MARKS_SHARE: u64 = 8;

/// The servers.
pub(super) struct Servers {
    client: Client,
    pub(super) context: Context,
    /// Records that wait.
    pub(super) waiting: Stream,
    /// Dead letters.
    pub(super) dead: Stream,
    /// `once` keys and facts.
    pub(super) marks: kv::Store,
    /// Who delivers.
    pub(super) lease: kv::Store,
    /// What all names begin with.
    pub(super) prefix: String,
    /// Whether what is removed is overwritten on the servers' disks. It takes twice
    /// as long as removing alone. Without the key nobody can read what is encrypted,
    /// so then it is left to be overwritten by and by.
    erases: bool,
}

impl Servers {
    pub(super) async fn open(
        spool: &Spool,
        config: &Jetstream,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let client = connect(config, metrics).await?;
        let context =
            ContextBuilder::new().timeout(REQUEST).ack_timeout(REQUEST).build(client.clone());
        let prefix = config.prefix.clone();
        let ensure = |definition| ensure(&context, definition);
        let waiting = ensure(waiting(spool, config)).await?;
        let dead = ensure(dead(spool, config)).await?;
        let max = i64::try_from((spool.max_bytes / MARKS_SHARE).max(1 << 20)).unwrap_or(i64::MAX);
        let marks = bucket(&context, marks(spool, config, max)).await?;
        let lease = bucket(&context, lease(config)).await?;
        let erases = spool.key_file.is_none();
        Ok(Self { client, context, waiting, dead, marks, lease, prefix, erases })
    }

    /// Whether there is a connection now.
    pub(super) fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The largest message that a server takes.
    pub(super) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Removes a message. It is no error if it is not there.
    pub(super) async fn remove(&self, stream: &Stream, sequence: u64) -> Result<(), Error> {
        let name = &stream.cached_info().config.name;
        let request = json!({ "seq": sequence, "no_erase": !self.erases });
        let answer = self.context.request(format!("STREAM.MSG.DELETE.{name}"), &request).await;
        let problem = match answer {
            Ok(Response::Ok(DeleteStatus { success: true })) => return Ok(()),
            Ok(Response::Ok(_)) => "it was not found".to_owned(),
            Ok(Response::Err { error }) => error.to_string(),
            Err(error) => error.to_string(),
        };
        // The refusal of what is gone has several names.
        match stream.get_raw_message(sequence).await {
            Err(missing) if is_missing(&missing) => Ok(()),
            _ => Err(failed("a record was not removed", problem)),
        }
    }

    /// Ends the connection after all that was sent.
    pub(super) async fn close(&self) {
        // It does not wait for an end that may never come without a connection.
        if let Err(error) = self.client.drain().await {
            tracing::debug!(%error, "the connection to the NATS servers is gone already");
        }
    }
}

async fn connect(config: &Jetstream, metrics: &Metrics) -> Result<Client, Error> {
    let all = config.servers.join(", ");
    let unusable = |what: &str, path: &std::path::Path, error: std::io::Error| {
        Error::Open(format!("spool.jetstream.{what} {}: {error}", path.display()))
    };
    let connected = metrics.connected.clone();
    let mut options = ConnectOptions::new()
        .name("exogate")
        .ping_interval(PING)
        .connection_timeout(CONNECT_ONE)
        .request_timeout(Some(REQUEST))
        // The configured names are the ones that certificates and firewalls know.
        .ignore_discovered_servers()
        .reconnect_delay_callback(|attempt| if attempt < 2 { Duration::ZERO } else { RECONNECT })
        .event_callback(move |event| {
            match &event {
                Event::Connected => connected.set(1),
                Event::Disconnected | Event::Closed => connected.set(0),
                _ => {}
            }
            match event {
                Event::Connected | Event::Draining | Event::Closed => {
                    tracing::debug!(%event, "NATS connection");
                }
                _ => tracing::warn!(%event, "NATS connection"),
            }
            std::future::ready(())
        });
    if let Some(path) = &config.credentials_file {
        options = options
            .credentials_file(path)
            .await
            .map_err(|error| unusable("credentials_file", path, error))?;
    }
    if let Some(path) = &config.ca_file {
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    if let Some(certificate) = &config.client_certificate {
        options = options
            .add_client_certificate(certificate.chain.clone(), certificate.key.clone())
            .require_tls(true);
    }
    let addresses: Result<Vec<ServerAddr>, _> =
        config.servers.iter().map(|server| server.parse()).collect();
    let addresses = addresses
        .map_err(|error| Error::Open(format!("spool.jetstream.servers {all}: {error}")))?;
    match tokio::time::timeout(CONNECT, options.connect(addresses)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(Error::Open(format!("none of the NATS servers {all}: {error}"))),
        Err(_) => {
            Err(Error::Open(format!("none of the NATS servers {all} answered within {CONNECT:?}")))
        }
    }
}

fn base(config: &Jetstream, name: String, subjects: String) -> Config {
    Config {
        name,
        subjects: vec![subjects],
        num_replicas: config.replicas,
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        ..Config::default()
    }
}

fn waiting(spool: &Spool, config: &Jetstream) -> Config {
    let prefix = &config.prefix;
    Config {
        max_bytes: i64::try_from(spool.max_bytes).unwrap_or(i64::MAX),
        // Those who deliver give a record up after `retry_for`. This is for what
        // nobody came for.
        max_age: spool.retry_for.saturating_add(spool.keep_for),
        discard: DiscardPolicy::New,
        ..base(config, format!("{prefix}_waiting"), format!("{prefix}.waiting.*"))
    }
}

fn dead(spool: &Spool, config: &Jetstream) -> Config {
    let prefix = &config.prefix;
    Config {
        max_age: spool.keep_for,
        // A record that is buried again after a crash takes its own place.
        max_messages_per_subject: 1,
        discard: DiscardPolicy::Old,
        ..base(config, format!("{prefix}_dead"), format!("{prefix}.dead.*.*"))
    }
}

/// A bucket as the `nats` tool and every client library know it.
fn as_bucket(config: &Jetstream, name: &str) -> Config {
    let bucket = format!("{}_{name}", config.prefix);
    Config {
        max_messages_per_subject: 1,
        allow_rollup: true,
        deny_delete: true,
        ..base(config, format!("KV_{bucket}"), format!("$KV.{bucket}.>"))
    }
}

fn marks(spool: &Spool, config: &Jetstream, max_bytes: i64) -> Config {
    Config {
        max_age: spool.keep_for,
        max_bytes,
        // The oldest marks are the least likely to be asked for. Without one a
        // record comes twice; refused marks would refuse records.
        discard: DiscardPolicy::Old,
        ..as_bucket(config, "marks")
    }
}

fn lease(config: &Jetstream) -> Config {
    Config { discard: DiscardPolicy::New, max_bytes: 1 << 20, ..as_bucket(config, "lease") }
}

async fn bucket(context: &Context, definition: Config) -> Result<kv::Store, Error> {
    let stream = ensure(context, definition).await?;
    let name = stream.cached_info().config.name.clone();
    let bucket = name.strip_prefix("KV_").unwrap_or(&name);
    let opened = context.get_key_value(bucket).await;
    opened.map_err(|error| Error::Open(format!("bucket {bucket}: {error}")))
}

/// Makes a stream, or checks the one that is there.
async fn ensure(context: &Context, wanted: Config) -> Result<Stream, Error> {
    let name = wanted.name.clone();
    let open = |error: String| {
        Error::Open(format!(
            "stream {name}: {error}; JetStream has to be on, with room for it and {} servers",
            wanted.num_replicas
        ))
    };
    let mut created = false;
    loop {
        match context.get_stream(&name).await {
            Ok(found) => return adjust(context, found, wanted).await,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(ref problem)
                    if problem.error_code() == ErrorCode::STREAM_NOT_FOUND && !created => {}
                _ => return Err(open(error.to_string())),
            },
        }
        // Two hosts may come here at once; then one of them finds the other's.
        created = true;
        if let Err(error) = context.create_stream(wanted.clone()).await
            && context.get_stream(&name).await.is_err()
        {
            return Err(open(error.to_string()));
        }
    }
}

/// Takes a stream as it is, changes its limits, or refuses it.
async fn adjust(context: &Context, found: Stream, wanted: Config) -> Result<Stream, Error> {
    let have = &found.cached_info().config;
    let name = &wanted.name;
    if let Some(difference) = difference(have, &wanted) {
        return Err(Error::Open(format!(
            "stream {name} is there with another shape: {difference}; choose another \
             spool.jetstream.prefix, or change the stream with the `nats` tool"
        )));
    }
    if have.max_bytes == wanted.max_bytes && have.max_age == wanted.max_age {
        return Ok(found);
    }
    tracing::info!(stream = name, "the limits of a NATS stream are changed to the configured ones");
    let changed = Config {
        max_bytes: wanted.max_bytes,
        max_age: wanted.max_age,
        // It may not be longer than the age.
        duplicate_window: have.duplicate_window.min(wanted.max_age),
        ..have.clone()
    };
    let update = context.update_stream(changed).await;
    update.map_err(|error| Error::Open(format!("stream {name}: its limits: {error}")))?;
    let changed = context.get_stream(name).await;
    changed.map_err(|error| Error::Open(format!("stream {name}: {error}")))
}

/// What differs and must not.
fn difference(have: &Config, wanted: &Config) -> Option<String> {
    fn differs<T: PartialEq + std::fmt::Debug>(what: &str, have: &T, wanted: &T) -> Option<String> {
        (have != wanted).then(|| format!("{what} {have:?}, not {wanted:?}"))
    }
    let per_subject = |config: &Config| config.max_messages_per_subject.max(-1);
    differs("subjects", &have.subjects, &wanted.subjects)
        .or_else(|| differs("retention", &have.retention, &wanted.retention))
        .or_else(|| differs("storage", &have.storage, &wanted.storage))
        .or_else(|| differs("discard", &have.discard, &wanted.discard))
        .or_else(|| differs("replicas", &have.num_replicas, &wanted.num_replicas))
        .or_else(|| differs("messages per subject", &per_subject(have), &per_subject(wanted)))
        .or_else(|| differs("no_ack", &have.no_ack, &false))
        .or_else(|| differs("sealed", &have.sealed, &false))
        .or_else(|| differs("mirror", &have.mirror.is_some(), &false))
        .or_else(|| differs("sources", &have.sources.is_some(), &false))
}

/// Whether the servers say that a message is not there.
pub(super) fn is_missing(error: &stream::RawMessageError) -> bool {
    error.kind() == stream::RawMessageErrorKind::NoMessageFound
}

/// An answer that did not come, or was a refusal.
pub(super) fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Failed(format!("{what}: {error}; see whether the NATS servers have a leader"))
}
