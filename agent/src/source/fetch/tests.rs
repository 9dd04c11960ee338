use std::{io, net::SocketAddr};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// An HTTPS server that gives every connection the same raw answer, and then
/// keeps it open if `hang`.
struct Server {
    address: SocketAddr,
    ca_file: tempfile::NamedTempFile,
}

impl Server {
    async fn start(answer: impl Into<Vec<u8>>, hang: bool) -> Self {
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
        let answer = Arc::new(answer.into());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
                // A client that does not trust us is no fault of the server.
                tokio::spawn(async move { serve(stream, acceptor, &answer, hang).await.ok() });
            }
        });
        Self { address, ca_file }
    }

    fn url(&self) -> Uri {
        format!("https://localhost:{}/version/Worldwide", self.address.port()).parse().unwrap()
    }

    fn options(&self) -> Options {
        Options {
            ca_file: Some(self.ca_file.path().to_owned()),
            proxy: None,
            timeout: Duration::from_secs(5),
        }
    }

    async fn get(&self) -> Result<Bytes, Error> {
        Client::new(&self.options())?.get(&self.url(), 1000).await
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, answer: &[u8], hang: bool) -> io::Result<()> {
    let mut stream = tls.accept(stream).await?;
    read_head(&mut stream).await?;
    stream.write_all(answer).await?;
    stream.flush().await?;
    if hang {
        std::future::pending::<()>().await;
    }
    stream.shutdown().await
}

async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

#[tokio::test]
async fn a_body_comes_over_tls_that_the_ca_file_trusts() {
    let server = Server::start(answer("200 OK", "", "{}"), false).await;
    assert_eq!(server.get().await.unwrap(), "{}");
}

#[tokio::test]
async fn a_certificate_that_the_ca_file_does_not_trust_is_refused() {
    let server = Server::start(answer("200 OK", "", "{}"), false).await;
    let other = Server::start(answer("200 OK", "", "{}"), false).await;
    let error = Client::new(&other.options()).unwrap().get(&server.url(), 1000).await.unwrap_err();
    assert_eq!(error.name(), "transport");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let server = Server::start(answer("200 OK", "", "{}"), false).await;
    let url = format!("https://127.0.0.1:{}/", server.address.port()).parse().unwrap();
    let error = Client::new(&server.options()).unwrap().get(&url, 1000).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn nothing_is_fetched_without_tls() {
    let server = Server::start(answer("200 OK", "", "{}"), false).await;
    let url = format!("http://localhost:{}/", server.address.port()).parse().unwrap();
    let error = Client::new(&server.options()).unwrap().get(&url, 1000).await.unwrap_err();
    assert_eq!(error.name(), "transport");
}

#[tokio::test]
async fn statuses_are_told_apart() {
    for (status, headers, name, throttled) in [
        ("429 Too Many Requests", "", "throttled", Some(3600)),
        ("429 Too Many Requests", "Retry-After: 7200\r\n", "throttled", Some(7200)),
        ("429 Too Many Requests", "Retry-After: 5\r\n", "throttled", Some(3600)),
        ("429 Too Many Requests", "Retry-After: 99999999\r\n", "throttled", Some(86_400)),
        ("500 Internal Server Error", "", "server_error", None),
        ("503 Service Unavailable", "Retry-After: 5\r\n", "server_error", None),
        ("404 Not Found", "", "status", None),
        ("204 No Content", "", "status", None),
        ("301 Moved Permanently", "Location: https://elsewhere.example/\r\n", "redirect", None),
    ] {
        let server = Server::start(answer(status, headers, ""), false).await;
        let error = server.get().await.unwrap_err();
        assert_eq!(error.name(), name, "{status}");
        assert_eq!(error.throttled(), throttled.map(Duration::from_secs), "{status} {headers}");
        if name == "redirect" {
            assert!(error.to_string().contains("https://elsewhere.example/"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_not_read_to_its_end() {
    let long = "x".repeat(1001);
    let server = Server::start(answer("200 OK", "", &long), false).await;
    assert_eq!(server.get().await.unwrap_err().name(), "too_large");

    // A length that is announced, and one that is not.
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_owned() + &long;
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{long}\r\n");
    for text in [announced, chunked] {
        let server = Server::start(text, true).await;
        assert_eq!(server.get().await.unwrap_err().name(), "too_large");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_a_failure() {
    let server =
        Server::start("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[{\"id\":1", false).await;
    assert_eq!(server.get().await.unwrap_err().name(), "transport");
}

#[tokio::test]
async fn a_server_that_hangs_is_left_in_time() {
    for text in ["", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[{\"id\":1"] {
        let server = Server::start(text, true).await;
        let options = Options { timeout: Duration::from_millis(300), ..server.options() };
        let error = Client::new(&options).unwrap().get(&server.url(), 1000).await.unwrap_err();
        assert_eq!(error.name(), "timeout");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_named() {
    let server = Server::start("", false).await;
    let url = "https://localhost:1/version".parse().unwrap();
    let error = Client::new(&server.options()).unwrap().get(&url, 1000).await.unwrap_err();
    assert_eq!(error.name(), "transport");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_proxy_is_asked_to_connect_and_sees_no_more_than_that() {
    let server = Server::start(answer("200 OK", "", "{}"), false).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let upstream = server.address;
    let proxy = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let head = read_head(&mut client).await.unwrap();
        let mut upstream = TcpStream::connect(upstream).await.unwrap();
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
        tokio::io::copy_bidirectional(&mut client, &mut upstream).await.ok();
        head
    });
    let address = format!("http://edge:secret@127.0.0.1:{port}");
    let options = Options { proxy: Some(Proxy::try_from(address).unwrap()), ..server.options() };
    let client = Client::new(&options).unwrap();
    assert_eq!(client.get(&server.url(), 1000).await.unwrap(), "{}");
    drop(client);
    let head = proxy.await.unwrap();
    let first = format!("CONNECT localhost:{} HTTP/1.1\r\n", upstream.port());
    assert!(head.starts_with(&first), "{head}");
    // "edge:secret" in base64.
    assert!(head.to_lowercase().contains("proxy-authorization: basic"), "{head}");
    assert!(head.contains("ZWRnZTpzZWNyZXQ="), "{head}");
}

#[test]
fn a_ca_file_without_a_certificate_is_named() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    for path in [empty.path(), Path::new("/nowhere/ca.pem")] {
        let options =
            Options { ca_file: Some(path.to_owned()), proxy: None, timeout: Duration::ZERO };
        let Err(error) = Client::new(&options) else { panic!("a client without roots") };
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
