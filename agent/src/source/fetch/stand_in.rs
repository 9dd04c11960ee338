//! An HTTPS server that answers as it is told, for tests.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::Options;

/// Gives one raw answer to each connection, the last one to all further ones, and
/// then keeps it open if it is to hang.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    ca_file: tempfile::NamedTempFile,
    script: Arc<Script>,
}

struct Script {
    answers: Mutex<VecDeque<Vec<u8>>>,
    heads: Mutex<Vec<String>>,
    hang: bool,
}

impl Server {
    pub(crate) async fn start(answers: &[impl AsRef<[u8]>], hang: bool) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca_file.path(), cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = answers.iter().map(|answer| answer.as_ref().to_owned()).collect();
        let script =
            Arc::new(Script { answers: Mutex::new(answers), heads: Mutex::default(), hang });
        let shared = Arc::clone(&script);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, script) = (acceptor.clone(), Arc::clone(&shared));
                // A client that does not trust us is no fault of the server.
                tokio::spawn(async move { serve(stream, acceptor, &script).await.ok() });
            }
        });
        Self { address, ca_file, script }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Trusts this server only.
    pub(crate) fn options(&self) -> Options {
        Options {
            ca_file: Some(self.ca_file.path().to_owned()),
            proxy: None,
            timeout: Duration::from_secs(5),
        }
    }

    /// The first lines of the requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        let first = |head: &String| head.lines().next().unwrap_or_default().to_owned();
        self.heads().iter().map(first).collect()
    }

    /// The requests so far, without bodies.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.script.heads.lock().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, script: &Script) -> io::Result<()> {
    let mut stream = tls.accept(stream).await?;
    let head = read_head(&mut stream).await?;
    script.heads.lock().unwrap().push(head);
    let answer = {
        let mut answers = script.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    };
    stream.write_all(&answer.unwrap_or_default()).await?;
    stream.flush().await?;
    if script.hang {
        std::future::pending::<()>().await;
    }
    stream.shutdown().await
}

pub(crate) async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A whole answer.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}
