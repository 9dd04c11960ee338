//! Alerts of the list and its feeds.

use std::fs;

use exogate_tests::{
    agent::Agent,
    lists,
    service::{Fault, On},
};
use toml::Table;

use super::{TARGETS, Watched};

#[test]
fn the_alerts_of_the_list_fire_and_resolve() {
    let mut watched = Watched::new();
    let probes = watched.lab.directory().join("probes.txt");
    fs::write(&probes, "198.51.100.200\n").unwrap();
    let more = format!(
        "[[guard]]\nport = 443\nsources = [\"exchange-online\", \"probes\"]\n\
         [source.probes]\nkind = \"file\"\npath = {probes:?}\nallow_private = true"
    );
    // What is asked every second is stale after seconds.
    watched.agent.set("feed.interval", "1s").unwrap();
    watched.agent.set("gate.capacity", 1).unwrap();
    watched.agent.settings().extend(more.parse::<Table>().unwrap());
    watched.agent.start().unwrap();
    // Another host of the fleet, which has no interface to filter.
    let mut second = Agent::second(&watched.lab).unwrap();
    second.set("interfaces", Vec::<String>::new()).unwrap();
    second.set("feed.interval", "1s").unwrap();
    second.settings().extend(more.parse::<Table>().unwrap());
    second.start().unwrap();
    watched.watch(&TARGETS);

    watched.service.fail(On::Any, Fault::ServerError);
    watched.fires("ExogateFeedStale");
    watched.service.heal();
    watched.resolves("ExogateFeedStale");

    watched.service.fail(On::Endpoints, Fault::EmptyArray);
    watched.publish("2020080600");
    watched.fires("ExogateFeedRefused");
    watched.service.heal();
    watched.resolves("ExogateFeedRefused");

    watched.agent.print(&["feed", "hold"]).unwrap();
    watched.fires("ExogateUpdatesHeld");
    watched.agent.print(&["feed", "resume"]).unwrap();
    watched.resolves("ExogateUpdatesHeld");

    second.print(&["allow", "198.51.100.201", "--for", "1h", "--reason", "a test"]).unwrap();
    watched.fires("ExogateListsDiffer");
    second.print(&["allow", "remove", "198.51.100.201"]).unwrap();
    watched.resolves("ExogateListsDiffer");

    // Longer than the tables are, and nowhere to write it to.
    let state = watched.agent.state_directory();
    let aside = state.with_extension("aside");
    fs::rename(&state, &aside).unwrap();
    fs::write(&state, "").unwrap();
    let write = |text: &str| {
        let next = probes.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &probes).unwrap();
    };
    let two = "198.51.100.200\n198.51.100.202\n";
    write(two);
    watched.fires("ExogateListNotSaved");
    fs::remove_file(&state).unwrap();
    fs::rename(&aside, &state).unwrap();
    let long: Vec<_> = lists::service_tags().unwrap().iter().map(ToString::to_string).collect();
    write(&(two.to_owned() + &long.join("\n")));
    watched.fires("ExogatePublishFailed");
    write(two);
    watched.resolves("ExogateListNotSaved");
    watched.resolves("ExogatePublishFailed");

    // A file that is not there when the agent comes up without a memory of it.
    watched.agent.terminate().unwrap();
    fs::remove_file(&probes).unwrap();
    fs::remove_dir_all(&state).unwrap();
    watched.agent.start().unwrap();
    watched.fires("ExogateSourceEmpty");
    write("198.51.100.200\n");
    watched.resolves("ExogateSourceEmpty");
}
