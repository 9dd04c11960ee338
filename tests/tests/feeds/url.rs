//! Lists from a real web server.

use std::net::SocketAddr;

use exogate_tests::server::Nginx;

use super::{PARTNERS, SOON, feed, follow, lab, passing, poll, server, wait};

const PLAIN: &str = "location / { }";

#[test]
fn a_list_is_followed_over_both_families_and_read_only_when_it_is_another() {
    for address in ["192.0.2.30", "2001:db8:5::30"] {
        let lab = lab();
        let address = SocketAddr::new(server(address, &lab), 443);
        let nginx = Nginx::start(&lab, lab.wan(), &[address], PLAIN).unwrap();
        let [a, b, c, d] = PARTNERS;
        nginx.put("partners.txt", &format!("# partners\n{a}\n{c} # of the north\n")).unwrap();
        let ca = lab.ca_file();
        let mut agent = follow(
            &lab,
            &format!("kind = \"url\"\nurl = \"https://{address}/partners.txt\"\nca_file = {ca:?}"),
        );
        agent.start().unwrap();
        wait(&lab, a, true, SOON);
        assert_eq!(passing(&lab), [a, c], "{}", agent.log());

        poll(&agent);
        poll(&agent);
        let statuses: Vec<_> = nginx.requests().into_iter().map(|(status, _)| status).collect();
        assert_eq!(statuses, [200, 304, 304], "{}", agent.log());

        nginx.put("partners.txt", &format!("{a}\n{b}/32\n{c}\n{d}\n")).unwrap();
        poll(&agent);
        assert_eq!(passing(&lab), PARTNERS, "{}", agent.log());
        nginx.put("partners.txt", &format!("{b}\n{c}\n{d}\n")).unwrap();
        poll(&agent);
        assert_eq!(passing(&lab), [b, c, d], "{}", agent.log());
        let statuses: Vec<_> = nginx.requests().into_iter().map(|(status, _)| status).collect();
        assert_eq!(statuses, [200, 304, 304, 200, 200]);

        // The entity tag is remembered with the list.
        agent.restart().unwrap();
        assert_eq!(passing(&lab), [b, c, d], "{}", agent.log());
        poll(&agent);
        assert_eq!(nginx.requests().last().unwrap().0, 304, "{:?}", nginx.requests());
        assert!(feed(&agent, "partners")["problem"].is_null());
    }
}

#[test]
fn a_list_that_its_server_lost_stays_until_there_is_another() {
    let lab = lab();
    let address = SocketAddr::new(server("192.0.2.30", &lab), 443);
    let nginx = Nginx::start(&lab, lab.wan(), &[address], PLAIN).unwrap();
    let [a, b, ..] = PARTNERS;
    nginx.put("partners.txt", a).unwrap();
    let ca = lab.ca_file();
    let mut agent = follow(
        &lab,
        &format!("kind = \"url\"\nurl = \"https://{address}/partners.txt\"\nca_file = {ca:?}"),
    );
    agent.start().unwrap();
    wait(&lab, a, true, SOON);
    std::fs::remove_file(nginx.files().join("partners.txt")).unwrap();
    poll(&agent);
    assert_eq!(feed(&agent, "partners")["problem"]["reason"], "status", "{}", agent.log());
    assert_eq!(passing(&lab), [a]);
    nginx.put("partners.txt", &format!("{a}\n{b}")).unwrap();
    poll(&agent);
    assert_eq!(passing(&lab), [a, b], "{}", agent.log());
}
