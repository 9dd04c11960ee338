//! TLS that is passed on by the name that clients ask for.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use exogate_tests::{
    agent::Agent,
    lab::{Family, Lab, Peer, edge},
    notification::RELAY_NAME,
    peer::HTTPS,
    process, python,
    tls::Validity,
};
use rustls::{ClientConnection, ServerConnection, StreamOwned, pki_types::ServerName};

use super::{Setting, identities::add_proxy, service::access_log};

/// The name whose TLS is the server's own.
const MAIL: &str = "mail.example.com";
const PATIENCE: Duration = Duration::from_secs(20);

/// An agent that passes `MAIL` on to a server, not started yet, and the server's socket.
fn setting() -> (Setting, TcpListener) {
    let mut setting = Setting::new();
    let listener = setting.lab.edge().run(|| Ok(TcpListener::bind("127.0.0.1:0")?)).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    pass_mail_to(&mut setting.agent, &url);
    (setting, listener)
}

fn pass_mail_to(agent: &mut Agent, server: &str) {
    agent.set("passthrough.mail.server_names", vec!["Mail.Example.com"]).unwrap();
    agent.set("passthrough.mail.upstream", "mail").unwrap();
    agent.set("upstream.mail.servers", vec![server]).unwrap();
}

fn connect(lab: &Lab) -> TcpStream {
    let target = SocketAddr::new(edge(Family::V4), HTTPS);
    let stream = lab.peer(Peer::Exchange).run(|| Ok(TcpStream::connect(target)?)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn speak(lab: &Lab, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    ClientConnection::new(lab.authority().client().unwrap(), name).unwrap()
}

/// The channel binding of RFC 9266.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

#[test]
fn the_session_is_that_of_client_and_server() {
    let (mut setting, listener) = setting();
    setting.agent.set("relay.access_log", true).unwrap();
    setting.agent.set("log.format", "json").unwrap();
    setting.agent.start().unwrap();
    let config = setting.lab.authority().server(&[MAIL], false).unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
        let mut asked = [0; 4];
        tls.read_exact(&mut asked).unwrap();
        tls.write_all(&asked).unwrap();
        let mut binding = [0; 32];
        tls.conn.export_keying_material(&mut binding, EXPORTER, Some(b"")).unwrap();
        tls.conn.send_close_notify();
        let _ = tls.flush();
        (binding, tls.conn.server_name().map(str::to_owned))
    });
    let mut client = StreamOwned::new(speak(&setting.lab, MAIL), connect(&setting.lab));
    client.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
    let mut binding = [0; 32];
    client.conn.export_keying_material(&mut binding, EXPORTER, Some(b"")).unwrap();
    let (seen, name) = server.join().unwrap();
    assert_eq!(binding, seen, "both know the same session");
    assert_eq!(name.as_deref(), Some(MAIL));
    // The end of one is the end of the other.
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    let passed = [("result", "passed_on")];
    drop(client);
    setting
        .agent
        .wait_until("the connection is counted", PATIENCE, |metrics| {
            metrics.sum("exogate_relay_connections_total", &passed) == Some(1.0)
        })
        .unwrap();
    let lines = access_log(&setting.agent);
    let [line] = lines.as_slice() else { panic!("one connection, one line: {lines:#?}") };
    let told = ["passthrough", "request", "result"].map(|field| line[field].as_str().unwrap());
    assert_eq!(told, ["mail", MAIL, "passed_on"]);
    let source = Peer::Exchange.address(Family::V4).to_string();
    assert!(line["source"].as_str().unwrap().starts_with(&source), "{line}");
}

#[test]
fn a_connection_that_is_passed_on_keeps_its_sources_place() {
    let (mut setting, listener) = setting();
    setting.agent.listener().unwrap().insert("source_connections".to_owned(), 1.into());
    setting.agent.start().unwrap();
    let mut hello = Vec::new();
    speak(&setting.lab, MAIL).write_tls(&mut hello).unwrap();
    let mut first = connect(&setting.lab);
    first.write_all(&hello).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.read_exact(&mut vec![0; hello.len()]).unwrap();
    let mut second = connect(&setting.lab);
    let error = second.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    drop((first, server));
    setting.until("exogate_relay_connections", &[], 0.0);
    connect(&setting.lab).write_all(&hello).unwrap();
    listener.accept().unwrap();
}

#[test]
fn the_name_counts_in_any_case_and_what_cannot_be_read_is_closed() {
    let (mut setting, listener) = setting();
    setting.agent.start().unwrap();

    let mut hello = Vec::new();
    speak(&setting.lab, MAIL).write_tls(&mut hello).unwrap();
    let place = hello.windows(MAIL.len()).position(|part| part == MAIL.as_bytes()).unwrap();
    hello[place..place + 4].copy_from_slice(b"mAiL");
    let mut client = connect(&setting.lab);
    // In two pieces, as networks do.
    client.write_all(&hello[..50]).unwrap();
    thread::sleep(Duration::from_millis(100));
    client.write_all(&hello[50..]).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut came = vec![0; hello.len()];
    server.read_exact(&mut came).unwrap();
    assert_eq!(came, hello, "not a byte is changed");
    drop(server);
    assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);

    // Other names are the relay's.
    let mut other = StreamOwned::new(speak(&setting.lab, RELAY_NAME), connect(&setting.lab));
    other.write_all(format!("GET / HTTP/1.1\r\nHost: {RELAY_NAME}\r\n\r\n").as_bytes()).unwrap();
    let mut status = [0; 12];
    other.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 404");

    let mut cut = hello.clone();
    // The message of a server.
    cut[5] = 2;
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), cut, vec![0x16; 70_000]] {
        let mut client = connect(&setting.lab);
        let _ = client.write_all(&bytes);
        // An alert may come first.
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        assert!(rest.len() < 100, "{rest:?}");
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the server hears nothing of it");
    let failed = [("result", "tls_failed")];
    setting
        .agent
        .wait_until("they are counted", PATIENCE, |metrics| {
            metrics.sum("exogate_relay_connections_total", &failed) == Some(3.0)
        })
        .unwrap();
}

#[test]
fn extended_protection_holds_where_tls_is_passed_on_and_nowhere_else() {
    let mut setting = Setting::new();
    let names = [MAIL, "localhost"];
    let (chain, key) = setting.lab.authority().issue_pem(&names, Validity::Now).unwrap();
    let files = ["mail-chain.pem", "mail-key.pem"].map(|name| setting.lab.directory().join(name));
    std::fs::write(&files[0], chain).unwrap();
    std::fs::write(&files[1], key).unwrap();
    let [chain, key] = files.each_ref().map(|file| file.to_str().unwrap());
    let arguments = ["1", chain, key, "tls-server-end-point"];
    let mut server =
        python::Server::start(setting.lab.edge(), "ntlm_server.py", &arguments).unwrap();
    let url = format!("https://localhost:{}", server.line().unwrap());
    pass_mail_to(&mut setting.agent, &url);
    add_proxy(&mut setting.agent, &[url]);
    let authority = setting.lab.ca_file().to_str().unwrap().to_owned();
    setting.agent.set("upstream.exchange.ca_file", authority).unwrap();
    setting.agent.start().unwrap();
    let status = |name: &str| {
        let namespace = setting.lab.peer(Peer::Exchange);
        let mut command = python::command(namespace, "ntlm_once.py").unwrap();
        command.arg(format!("https://{name}/EWS/echo")).arg(edge(Family::V4).to_string());
        let output = process::run(command.arg(setting.lab.ca_file()), PATIENCE).unwrap();
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stdout.trim().to_owned()
    };
    assert_eq!(status(MAIL), "200");
    assert_eq!(status(RELAY_NAME), "401", "the client's session is the relay's");
}
