use std::path::Path;

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::{
    stand_in::{Server, answer, read_head},
    *,
};

fn url(server: &Server) -> Uri {
    format!("{}/version/Worldwide", server.base_url()).parse().unwrap()
}

async fn get(server: &Server) -> Result<Bytes, Error> {
    Client::new(&server.options())?.get(&url(server), 1000).await
}

#[tokio::test]
async fn a_body_comes_over_tls_that_the_ca_file_trusts() {
    let server = Server::start(&[answer("200 OK", "", "{}")], false).await;
    assert_eq!(get(&server).await.unwrap(), "{}");
}

#[tokio::test]
async fn a_certificate_that_the_ca_file_does_not_trust_is_refused() {
    let server = Server::start(&[answer("200 OK", "", "{}")], false).await;
    let other = Server::start(&[answer("200 OK", "", "{}")], false).await;
    let error = Client::new(&other.options()).unwrap().get(&url(&server), 1000).await.unwrap_err();
    assert_eq!(error.name(), "transport");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let server = Server::start(&[answer("200 OK", "", "{}")], false).await;
    let url = format!("https://127.0.0.1:{}/", server.address.port()).parse().unwrap();
    let error = Client::new(&server.options()).unwrap().get(&url, 1000).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn nothing_is_fetched_without_tls() {
    let server = Server::start(&[answer("200 OK", "", "{}")], false).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let plain = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        read_head(&mut client).await.unwrap();
        client.write_all(answer("200 OK", "", "{}").as_bytes()).await.unwrap();
    });
    let error = Client::new(&server.options()).unwrap().get(&url, 1000).await.unwrap_err();
    assert_eq!(error.name(), "transport");
    plain.abort();
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
        let server = Server::start(&[answer(status, headers, "")], false).await;
        let error = get(&server).await.unwrap_err();
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
    let server = Server::start(&[answer("200 OK", "", &long)], false).await;
    assert_eq!(get(&server).await.unwrap_err().name(), "too_large");

    // A length that is announced, and one that is not.
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_owned() + &long;
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{long}\r\n");
    for text in [announced, chunked] {
        let server = Server::start(&[text], true).await;
        assert_eq!(get(&server).await.unwrap_err().name(), "too_large");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_a_failure() {
    let server =
        Server::start(&["HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[{\"id\":1"], false).await;
    assert_eq!(get(&server).await.unwrap_err().name(), "transport");
}

#[tokio::test]
async fn a_server_that_hangs_is_left_in_time() {
    for text in ["", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n[{\"id\":1"] {
        let server = Server::start(&[text], true).await;
        let options = Options { timeout: Duration::from_millis(300), ..server.options() };
        let error = Client::new(&options).unwrap().get(&url(&server), 1000).await.unwrap_err();
        assert_eq!(error.name(), "timeout");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_named() {
    let server = Server::start(&[""], false).await;
    let url = "https://localhost:1/version".parse().unwrap();
    let error = Client::new(&server.options()).unwrap().get(&url, 1000).await.unwrap_err();
    assert_eq!(error.name(), "transport");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_proxy_is_asked_to_connect_and_sees_no_more_than_that() {
    let server = Server::start(&[answer("200 OK", "", "{}")], false).await;
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
    assert_eq!(client.get(&url(&server), 1000).await.unwrap(), "{}");
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
