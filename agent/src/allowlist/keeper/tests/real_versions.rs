//! Every version of the web service that was captured, in order and backwards.

use super::*;
use crate::source::microsoft365::EndpointSets;

fn read(path: &std::path::Path) -> EndpointSets {
    parse_endpoints(&std::fs::read(path).unwrap()).unwrap()
}

/// The captured versions of an instance, oldest first.
fn versions(instance: Instance) -> Vec<(Version, EndpointSets)> {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data");
    let prefix = format!("{}-", instance.name().to_lowercase());
    let mut versions = Vec::new();
    for directory in ["history", "worldwide"] {
        for entry in std::fs::read_dir(format!("{data}/{directory}")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let Some(rest) = name.strip_prefix(&prefix) else { continue };
            // Captures have a day instead of a version.
            let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
            versions.push((version(&format!("{digits:0<10}")), read(&path)));
        }
    }
    versions.sort_by_key(|(version, _)| *version);
    versions
}

fn config(instance: Instance) -> Config {
    let text = format!(
        "[[guard]]\nport = 443\nsources = [\"exchange\", \"graph\"]\n\
         [source.exchange]\nkind = \"exchange-online\"\ninstance = \"{instance}\"\n\
         [source.graph]\nkind = \"graph-notifications\"\ninstance = \"{instance}\""
    );
    at_once(Config::parse("test".as_ref(), &text).unwrap())
}

/// Gives the versions one after the other, and says what became of each.
async fn follow(instance: Instance, versions: &[(Version, EndpointSets)]) -> Vec<String> {
    let bench = Bench::default();
    let running =
        Running::start_with(&bench, Arc::new(tempfile::tempdir().unwrap()), config(instance));
    running.pass(Duration::from_secs(1)).await;
    let id = FeedId::Instance(instance);
    let mut outcomes = Vec::new();
    for (version, sets) in versions {
        let before = running.hash();
        let answer = || Answer { version: *version, sets: sets.clone() };
        bench.answer(Ok(Collected::New(answer())));
        running.commands.send(Command::Refresh { dry_run: false }).await.unwrap();
        running.pass(Duration::from_secs(1)).await;
        let mut feed = running.status.borrow().feeds[&id].clone();
        let outcome = match &feed.problem {
            Some(problem) => {
                assert_eq!(running.hash(), before, "what is refused changes nothing");
                format!("refused ({})", problem.reason)
            }
            None => "applied".to_owned(),
        };
        // An operator looks at it, and knows an empty publication for what it is.
        if outcome == "refused (removes_too_much)" {
            bench.answer(Ok(Collected::New(answer())));
            running.commands.send(Command::Accept(id.clone())).await.unwrap();
            running.pass(Duration::from_secs(1)).await;
            feed = running.status.borrow().feeds[&id].clone();
            assert!(feed.problem.is_none(), "{:?}", feed.problem);
        }
        let list = Arc::clone(&running.status.borrow().list);
        let counts: Vec<_> = list.sources().iter().map(|source| source.entries.len()).collect();
        println!(
            "{instance:<13} {version} {outcome:<28} exchange {:>3} graph {:>3}, {:>3} held for \
             removal",
            counts[0],
            counts[1],
            feed.pending_removals.len()
        );
        outcomes.push(outcome);
    }
    outcomes
}

fn refused(outcomes: &[String]) -> Vec<&str> {
    outcomes.iter().map(String::as_str).filter(|outcome| *outcome != "applied").collect()
}

/// Kept in a function of its own, so that its table is read as one.
#[tokio::test(start_paused = true)]
async fn every_real_version_of_every_cloud_is_applied_refused_or_held_as_documented() {
    for instance in Instance::ALL {
        let mut all = versions(instance);
        assert!(all.len() >= 2, "{instance}");
        // Published for every cloud without a single row on 2018-11-28.
        all.push((version("2018112800"), parse_endpoints(b"[]").unwrap()));
        all.sort_by_key(|(version, _)| *version);
        println!("-- {instance}, forwards");
        let forwards = follow(instance, &all).await;
        all.reverse();
        println!("-- {instance}, backwards");
        let backwards = follow(instance, &all).await;
        let (expected_forwards, expected_backwards) = expected(instance);
        assert_eq!(refused(&forwards), expected_forwards, "{instance} forwards");
        assert_eq!(refused(&backwards), expected_backwards, "{instance} backwards");
    }
}

/// What is refused of each cloud, forwards and backwards: the empty version, and not
/// much more. The Worldwide version of
/// 2018-08-30 has no address in the set of the Graph host, that of 2019-02-28 takes
/// half of them away.
fn expected(instance: Instance) -> (&'static [&'static str], &'static [&'static str]) {
    const NONE: &str = "refused (no_prefixes)";
    const MANY: &str = "refused (removes_too_much)";
    match instance {
        Instance::Worldwide => (&[NONE, NONE, MANY], &[NONE, NONE]),
        Instance::UsGovDod => (&[NONE], &[NONE]),
        // Of the last capture only a part was kept.
        Instance::UsGovGccHigh => (&[NONE, MANY], &[NONE]),
        // In 2020-07 the set of the Graph host has no address.
        Instance::China => (&[NONE, NONE], &[NONE, NONE]),
    }
}
