//! What is saved is loaded, and what cannot be is said.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, thread};

use caps::{CapSet, Capability};

use super::*;
use crate::{allowlist::held, source::Origin};

/// Of another boot.
const DEADLINE: &str = r#"{ "boot": "9699e339-ef49-4449-8ae4", "nanoseconds": 600000000000 }"#;

const WORLDWIDE: FeedId = FeedId::Instance(Instance::Worldwide);

fn example() -> Known {
    let mut held = held::embedded(&WORLDWIDE);
    held.revision = "2026112300".parse().ok().map(Revision::Version);
    held.provenance =
        Provenance::LastKnownGood { applied: "2026-11-23T20:00:00Z".parse().unwrap() };
    held.pending.push(Pending {
        source: "exchange-online".to_owned(),
        entry: crate::source::Entry {
            prefix: "40.92.0.0/15".parse().unwrap(),
            origin: Origin::EndpointSet {
                id: 9,
                service_area: "Exchange".to_owned(),
                urls: ["*.protection.outlook.com".to_owned()].into(),
            },
        },
        since: "2026-11-23T20:00:00Z".parse().unwrap(),
        polls: 1,
    });
    let at: Timestamp = "2026-11-23T20:00:00Z".parse().unwrap();
    let list = Held {
        revision: Some(Revision::Tag("etag \"1\"".to_owned())),
        provenance: Provenance::LastKnownGood { applied: at },
        content: Arc::new(Content::Entries(vec![crate::source::Entry {
            prefix: "10.1.0.0/16".parse().unwrap(),
            origin: Origin::Url { url: "https://lists.example/".into() },
        }])),
        pending: vec![],
        definition: Some("0123456789abcdef".to_owned()),
    };
    let temporary = Temporary {
        prefix: "203.0.113.7/32".parse().unwrap(),
        reason: "migration".to_owned(),
        since: at,
        until: "2026-11-23T22:00:00Z".parse().unwrap(),
    };
    Known {
        held: [(WORLDWIDE, held), (FeedId::Source("list".to_owned()), list)].into(),
        temporary: vec![temporary],
        hold: true,
        mode: Some(ModeOrder {
            mode: crate::config::Mode::Enforce,
            since: at,
            until: Some("2026-11-23T20:10:00Z".parse().unwrap()),
            deadline: serde_json::from_str(DEADLINE).unwrap(),
            former: None,
        }),
    }
}

/// As the program before wrote it.
fn first_form() -> Vec<u8> {
    let example = example();
    let held = &example.held[&WORLDWIDE];
    let feeds = vec![FirstFeed {
        instance: Instance::Worldwide,
        version: held.revision.as_ref().and_then(Revision::version),
        applied: held.provenance.time().unwrap(),
        sets: held.content.sets().to_vec(),
        pending: held.pending.clone(),
    }];
    let sha256 = checksum(&feeds).unwrap();
    serde_json::to_vec(&serde_json::json!({ "schema": 1, "sha256": sha256, "feeds": feeds }))
        .unwrap()
}

#[test]
fn the_form_before_is_read() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDirectory::new(root.path());
    fs::write(root.path().join("state.json"), first_form()).unwrap();
    let mut expected = example();
    expected.held.remove(&FeedId::Source("list".to_owned()));
    let expected = Known { held: expected.held, ..Known::default() };
    assert_eq!(state.load().unwrap(), expected);
    state.save(&expected).unwrap();
    assert_eq!(state.load().unwrap(), expected);
}

#[test]
fn what_was_saved_is_loaded() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDirectory::new(&root.path().join("made/when/needed"));
    assert_eq!(state.load().unwrap(), Known::default());
    state.save(&example()).unwrap();
    assert_eq!(state.load().unwrap(), example());
    state.save(&Known::default()).unwrap();
    assert_eq!(state.load().unwrap(), Known::default());
}

#[test]
fn a_large_state_is_loaded_as_it_was_saved() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDirectory::new(root.path());
    let url: Arc<str> = format!("https://lists.example/{}", "a".repeat(2000)).into();
    let entry = |number: u32| crate::source::Entry {
        prefix: std::net::IpAddr::from((0x2800_0000 + number).to_be_bytes()).into(),
        origin: Origin::Url { url: url.clone() },
    };
    let mut large = example();
    let held = large.held.get_mut(&FeedId::Source("list".to_owned())).unwrap();
    held.content = Arc::new(Content::Entries((0..35_000).map(entry).collect()));
    state.save(&large).unwrap();
    assert!(fs::metadata(root.path().join("state.json")).unwrap().len() > 64 << 20);
    assert!(state.load().unwrap() == large);
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDirectory::new(root.path());
    state.save(&example()).unwrap();
    let size = fs::metadata(root.path().join("state.json")).unwrap().len();
    let most = |most| StateDirectory { most, ..state.clone() };
    let refused = most(size - 1).save(&Known { hold: false, ..example() }).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
    assert_eq!(state.load().unwrap(), example(), "the state before is whole");
    most(size).save(&example()).unwrap();
    assert_eq!(most(size).load().unwrap(), example());
}

#[test]
fn what_is_built_in_is_not_saved() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDirectory::new(root.path());
    let built_in =
        Known { held: [(WORLDWIDE, held::embedded(&WORLDWIDE))].into(), ..Known::default() };
    state.save(&built_in).unwrap();
    assert_eq!(state.load().unwrap(), Known::default());
}

#[test]
fn a_crash_while_writing_leaves_the_old_state() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDirectory::new(root.path());
    state.save(&example()).unwrap();
    fs::write(root.path().join("state.json.new"), "{\"schema\": 1, \"fe").unwrap();
    assert_eq!(state.load().unwrap(), example());
    state.save(&example()).unwrap();
    assert_eq!(state.load().unwrap(), example());
}

#[test]
fn a_damaged_state_is_put_aside() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDirectory::new(root.path());
    let path = root.path().join("state.json");
    state.save(&example()).unwrap();
    let whole = fs::read_to_string(&path).unwrap();
    let (half, _) = whole.split_at(whole.len() / 2);
    for text in [
        "",
        "\0\0\0\0",
        half,
        "{}",
        "[]",
        &whole.replacen("40.96.0.0/13", "40.97.0.0/16", 1),
        &whole.replacen("2026112300", "2026112301", 1),
    ] {
        fs::write(&path, text).unwrap();
        assert!(matches!(state.load(), Err(Error::Damaged { .. })), "{text:.40}");
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(path.with_extension("json.damaged")).unwrap(), text);
        assert_eq!(state.load().unwrap(), Known::default());
    }
}

#[test]
fn the_state_of_a_newer_program_is_kept_for_it() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDirectory::new(root.path());
    let path = root.path().join("state.json");
    fs::write(&path, "{\"schema\": 3, \"other\": true}").unwrap();
    assert!(matches!(state.load(), Err(Error::Newer { found: 3, .. })));
    assert!(path.with_extension("json.newer").exists());
}

#[test]
fn a_state_of_another_user_is_left_where_it_is() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDirectory::new(root.path());
    state.save(&example()).unwrap();
    let path = root.path().join("state.json");
    fs::set_permissions(&path, Permissions::from_mode(0o0)).unwrap();
    // Root may read it all the same; a thread of its own gives that up.
    let load = || {
        for capability in [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH] {
            caps::drop(None, CapSet::Effective, capability).unwrap();
        }
        state.load()
    };
    let error = thread::scope(|scope| scope.spawn(load).join().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(state.load().unwrap(), example());
}

#[test]
fn a_state_that_cannot_be_read_is_left_where_it_is() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDirectory::new(root.path());
    // What the system can open and not read.
    let path = root.path().join("state.json");
    fs::create_dir(&path).unwrap();
    let error = state.load().unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error}");
    assert!(path.is_dir());
}

#[test]
fn a_state_that_the_disk_does_not_give_back_is_put_aside() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state.json");
    // Nothing is mapped at its beginning, which is an input/output error.
    std::os::unix::fs::symlink("/proc/self/mem", &path).unwrap();
    let error = StateDirectory::new(root.path()).load().unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(path.with_extension("json.damaged").is_symlink() && !path.is_symlink());
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_with_its_path() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let state = StateDirectory::new(&file);
    let error = state.save(&example()).unwrap_err().to_string();
    assert!(error.contains("file/state.json"), "{error}");
    assert!(state.load().is_err());
}

#[test]
fn what_is_said_of_a_damaged_file_can_be_printed() {
    let damaged =
        br#"{"schema": 2, "sha256": "", "body": {"feeds": [{"id": {"sour\u007fe": ""}}]}}"#;
    for bytes in [damaged.as_slice(), b"{\"schema\": \"\\u007f\\u001b[2J\"}"] {
        let error = parse(Path::new("state.json"), bytes).unwrap_err().to_string();
        assert!(error.contains("damaged") && !error.contains(char::is_control), "{error:?}");
    }
}
