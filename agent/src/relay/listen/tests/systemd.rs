//! What belongs to a process: sockets that are handed over, and descriptors that
//! run out. Each test runs itself again in a process of its own.

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::lab::*;
use crate::{
    config::ListenerAddress,
    relay::listen::{Drained, Inherited, Listener},
};

/// Set in the process of its own.
const CHILD: &str = "EXOGATE_TEST_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs a test of this module again, behind what the shell does first.
fn again(test: &str, first: &str, stdin: Stdio) -> Child {
    let shell =
        format!("{first}; exec \"$0\" --exact --nocapture relay::listen::tests::systemd::{test}");
    Command::new("sh")
        .args(["-c", &shell])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, "1")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn assert_success(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_systemd_is_taken_by_its_name_and_outlives_the_listener() {
    if is_child() {
        return serve_inherited().await;
    }
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lab = Lab::new();
    lab.address = socket.local_addr().unwrap();
    let handed_over = std::os::fd::OwnedFd::from(socket.try_clone().unwrap());
    // Number 3 is another one; number 4 is ours.
    let first = "exec 3</dev/null 4<&0 </dev/null; export LISTEN_FDS=2 LISTEN_FDNAMES=other:https \
                 LISTEN_PID=$$";
    let test = "a_socket_of_systemd_is_taken_by_its_name_and_outlives_the_listener";
    let child = again(test, first, Stdio::from(handed_over));
    assert!(lab.connect().await.ask("/").await.starts_with("HTTP/1.1 200"));
    let child = tokio::task::spawn_blocking(move || assert_success(child));
    wait("the child", child).await.unwrap();
    // Nobody accepts now, but who comes is not refused.
    TcpStream::connect(lab.address).unwrap();
}

async fn serve_inherited() {
    let mut lab = Lab::new();
    lab.config.address = ListenerAddress::Systemd("https".to_owned());
    lab.config.guard = None;
    let mut inherited = Inherited::from_environment();
    let listener = Listener::bind(&lab.config, &mut inherited, &lab.metrics).unwrap();
    assert_eq!(listener.guarded_ports(), [listener.addresses()[0].port()]);
    let error = Listener::bind(&lab.config, &mut inherited, &lab.metrics).err().unwrap();
    assert!(error.to_string().contains("taken already"), "{error}");
    lab.config.address = ListenerAddress::Systemd("other".to_owned());
    let error = Listener::bind(&lab.config, &mut inherited, &lab.metrics).err().unwrap();
    assert!(error.to_string().contains("of no use"), "{error}");
    let list: Arc<dyn crate::relay::listen::Admission> = Arc::<List>::clone(&lab.list);
    let running = listener.serve(list, Arc::clone(&lab.server));
    lab.ended("served", 1.0).await;
    assert_eq!(running.drain(Duration::from_secs(20)).await, Drained { cut: 0 });
}

#[tokio::test]
async fn without_descriptors_it_waits_and_goes_on() {
    let test = "without_descriptors_it_waits_and_goes_on";
    if !is_child() {
        let child = again(test, "ulimit -n 64", Stdio::null());
        let child = tokio::task::spawn_blocking(move || assert_success(child));
        return wait("the child", child).await.unwrap();
    }
    let mut lab = Lab::new();
    let _running = lab.start();
    let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    files.pop();
    // Takes the last one.
    let tcp = lab.tcp().await;
    lab.counted("exogate_relay_accept_errors_total", "no_descriptors").await;
    drop(files);
    let connector = tokio_rustls::TlsConnector::from(Options::default().config);
    let name = "edge.example.com".try_into().unwrap();
    let stream = wait("a handshake", connector.connect(name, tcp)).await.unwrap();
    assert!(Client { stream }.ask("/").await.starts_with("HTTP/1.1 200"));
}
