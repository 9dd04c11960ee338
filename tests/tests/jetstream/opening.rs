//! What is refused at once, and TLS.

use exogate_tests::tls::Authority;

use super::*;

async fn refusal(spool: &config::Spool, jetstream: &config::Jetstream) -> String {
    match try_open(spool, jetstream).await {
        Err(Error::Open(problem)) => problem,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was opened"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_another_shape_is_refused_and_limits_are_changed() {
    let cluster = Cluster::start(3).unwrap();
    let first = open(&cluster).await;
    let id = append(&*first, 1).await.unwrap();
    within(first.close()).await.unwrap();

    let one = config::Jetstream { replicas: 1, ..jetstream(&cluster) };
    let problem = refusal(&spool(), &one).await;
    assert!(problem.contains("exogate_waiting") && problem.contains("replicas 3"), "{problem}");

    let larger = config::Spool {
        max_bytes: 128 << 20,
        keep_for: Duration::from_secs(3600),
        retry_for: Duration::from_secs(60),
        ..spool()
    };
    let second = try_open(&larger, &jetstream(&cluster)).await.unwrap();
    deliver_all(&*second, &[id].into()).await;
    within(second.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_not_there_and_files_that_are_not_there_are_named() {
    let mut cluster = Cluster::start(1).unwrap();
    let alone = config::Jetstream { replicas: 1, ..jetstream(&cluster) };
    let path = cluster.directory().join("none.creds");
    let without = config::Jetstream { credentials_file: Some(path), ..alone.clone() };
    let problem = refusal(&spool(), &without).await;
    assert!(problem.contains("none.creds"), "{problem}");
    let more = config::Jetstream { replicas: 3, ..alone.clone() };
    let problem = refusal(&spool(), &more).await;
    assert!(problem.contains("exogate_waiting") && problem.contains("3 servers"), "{problem}");
    cluster.kill(0).unwrap();
    let problem = refusal(&spool(), &alone).await;
    assert!(problem.contains(&alone.servers[0]), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_the_authority_and_the_certificate_that_are_configured() {
    let authority = Authority::new().unwrap();
    let cluster = Cluster::start_with_tls(1, &authority).unwrap();
    let file = |name: &str| cluster.directory().join(name);
    let certificate =
        config::Certificate { chain: file("client.pem"), key: file("client-key.pem") };
    let whole = config::Jetstream {
        replicas: 1,
        ca_file: Some(file("ca.pem")),
        client_certificate: Some(certificate),
        ..jetstream(&cluster)
    };
    let opened = try_open(&spool(), &whole).await.unwrap();
    let id = append(&*opened, 1).await.unwrap();
    deliver_all(&*opened, &[id].into()).await;
    within(opened.close()).await.unwrap();

    std::fs::write(file("other-ca.pem"), Authority::new().unwrap().pem()).unwrap();
    for (what, config) in [
        ("the system's authorities", config::Jetstream { ca_file: None, ..whole.clone() }),
        (
            "another authority",
            config::Jetstream { ca_file: Some(file("other-ca.pem")), ..whole.clone() },
        ),
        ("no certificate", config::Jetstream { client_certificate: None, ..whole.clone() }),
    ] {
        let problem = refusal(&spool(), &config).await;
        assert!(problem.contains("none of the NATS servers"), "{what}: {problem}");
    }
}
