//! The other end of the control socket, for the command line.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Limit for one question.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error("no agent is running (nobody answers on {socket})")]
    NotRunning {
        /// The socket.
        socket: String,
    },
    /// This user may not open the socket.
    #[error("{socket} may not be opened by this user; run the command as root")]
    Refused {
        /// The socket.
        socket: String,
    },
    /// The agent answered, but not as expected.
    #[error("asking the agent on {socket} for {path} failed: {reason}")]
    Failed {
        /// The socket.
        socket: String,
        /// What was asked for.
        path: String,
        /// What came back.
        reason: String,
    },
}

/// Asks the agent on a control socket.
///
/// # Errors
///
/// See [`Error`].
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Error> {
    let name = socket.display().to_string();
    let failed =
        |reason: String| Error::Failed { socket: name.clone(), path: path.to_owned(), reason };
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Error::NotRunning { socket: name.clone() }
        }
        io::ErrorKind::PermissionDenied => Error::Refused { socket: name.clone() },
        _ => failed(error.to_string()),
    })?;
    let answer = tokio::time::timeout(LIMIT, ask(stream, path))
        .await
        .map_err(|_| failed(format!("no answer within {} s", LIMIT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    match answer {
        (StatusCode::OK, body) => {
            serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
        }
        (status, body) => {
            Err(failed(format!("{status}: {}", String::from_utf8_lossy(&body).trim())))
        }
    }
}

async fn ask(stream: UnixStream, path: &str) -> Result<(StatusCode, Bytes), hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().unwrap_or_default();
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}
