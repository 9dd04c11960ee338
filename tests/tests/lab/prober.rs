//! The prober sees what passes, and would see what should not.

use std::{thread::sleep, time::Duration};

use exogate_tests::{
    lab::{Family, Lab, Peer},
    peer::EdgeServer,
    prober::{Plan, Prober},
};

#[test]
fn an_open_path_lets_everything_through() {
    let lab = Lab::new().unwrap();
    let prober = Prober::start(&lab, Plan::default()).unwrap();
    sleep(Duration::from_secs(1));
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&Peer::ALL).unwrap();
    for peer in Peer::ALL {
        for family in Family::ALL {
            let datagrams = report.datagrams(peer, family);
            assert!(datagrams.arrived > 50, "{report}");
            assert_eq!((datagrams.arrived, datagrams.duplicates), (datagrams.sent, 0), "{report}");
            assert!(report.handshakes(peer, family).passed > 5, "{report}");
        }
    }
    let wrong = report.expect_only(&[Peer::Exchange, Peer::Graph]).unwrap_err().to_string();
    assert!(
        wrong.starts_with("wrong verdicts for stranger over V4, stranger over V6\n"),
        "{wrong}"
    );
}

#[test]
fn a_closed_moment_leaves_a_gap() {
    let lab = Lab::new().unwrap();
    let server = EdgeServer::start(&lab).unwrap();
    let prober = Prober::start(&lab, Plan::default()).unwrap();
    let forward = |value| lab.wan().sysctl(&[("ipv4/conf/graph/forwarding", value)]).unwrap();
    sleep(Duration::from_millis(300));
    let closed = prober.elapsed();
    forward("0");
    sleep(Duration::from_millis(200));
    forward("1");
    let opened = prober.elapsed();
    sleep(Duration::from_millis(300));
    let report = prober.stop().unwrap();
    println!("{report}");

    let wrong = report.expect_only(&Peer::ALL).unwrap_err().to_string();
    assert!(wrong.starts_with("wrong verdicts for graph over V4\n"), "{wrong}");
    let datagrams = report.datagrams(Peer::Graph, Family::V4);
    let [gap] = datagrams.gaps[..] else { panic!("{report}") };
    assert!(closed - Duration::from_millis(50) < gap.from && gap.until < opened, "{gap:?}");
    assert_eq!(datagrams.sent, datagrams.arrived + gap.missing);
    assert!(report.handshakes(Peer::Graph, Family::V4).late > 0, "{report}");
    // TCP attempts went to the server that was there.
    assert!(server.connections()[&Peer::Exchange.address(Family::V6)] > 5);
}

#[test]
fn a_closed_path_lets_nothing_through() {
    let lab = Lab::new().unwrap();
    lab.wan().sysctl(&[("ipv4/conf/stranger/forwarding", "0")]).unwrap();
    lab.wan().ip("route add blackhole 2001:db8:e::/64 metric 1\n").unwrap();
    let prober =
        Prober::start(&lab, Plan { peers: vec![Peer::Stranger], ..Plan::default() }).unwrap();
    sleep(Duration::from_millis(500));
    let report = prober.stop().unwrap();
    println!("{report}");
    report.expect_only(&[Peer::Exchange]).unwrap();
    assert!(report.handshakes(Peer::Stranger, Family::V4).dropped > 0, "{report}");
}
