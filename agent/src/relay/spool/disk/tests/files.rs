//! The files: who may read them, what is in them, and what if they are damaged.

use std::{fs, os::unix::fs::PermissionsExt};

use rusqlite::Connection;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn nobody_else_may_read_the_files() {
    let place = Temporary::new();
    fs::create_dir(place.spool()).unwrap();
    fs::set_permissions(place.spool(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(place.spool().join("spool.db"), "").unwrap();
    let spool = open(&config(), &place.spool()).unwrap();
    append(&spool, record("x")).await;
    assert_eq!(mode(&place.spool()), 0o700);
    let files = files(&place.spool());
    assert_eq!(files.len(), 4, "database, log, its index, lock: {files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    within(spool.close()).await.unwrap();
}

#[tokio::test]
async fn one_process_at_a_time() {
    let place = Temporary::new();
    let spool = open(&config(), &place.spool()).unwrap();
    let second = open(&config(), &place.spool());
    let problem = second.err().unwrap().to_string();
    assert!(problem.contains("another process"), "{problem}");
    append(&spool, record("x")).await;
    within(spool.close()).await.unwrap();
    open(&config(), &place.spool()).expect("the lock ends with the spool");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let place = Temporary::new();
    let spool = open(&config(), &place.spool()).unwrap();
    append(&spool, record("x")).await;
    within(spool.close()).await.unwrap();
    let database = Connection::open(place.spool().join("spool.db")).unwrap();
    database.pragma_update(None, "user_version", 2).unwrap();
    database.close().unwrap();
    let problem = open(&config(), &place.spool()).err().unwrap();
    assert!(matches!(&problem, Error::Open(text) if text.contains("newer exogate")), "{problem}");
    let database = Connection::open(place.spool().join("spool.db")).unwrap();
    let records: i64 =
        database.query_one("SELECT count(*) FROM record", [], |row| row.get(0)).unwrap();
    assert_eq!(records, 1);
}

#[tokio::test]
async fn a_database_of_somebody_else_is_refused() {
    let place = Temporary::new();
    fs::create_dir(place.spool()).unwrap();
    let database = Connection::open(place.spool().join("spool.db")).unwrap();
    database.execute_batch("CREATE TABLE theirs (x)").unwrap();
    database.close().unwrap();
    let problem = open(&config(), &place.spool()).err().unwrap().to_string();
    assert!(problem.contains("not a spool"), "{problem}");
}

#[tokio::test]
async fn a_damaged_database_is_put_aside_and_kept() {
    let place = Temporary::new();
    for round in 1..=2 {
        let spool = open(&config(), &place.spool()).unwrap();
        append(&spool, record("x")).await;
        within(spool.close()).await.unwrap();
        let path = place.spool().join("spool.db");
        let mut bytes = fs::read(&path).unwrap();
        bytes[..4096].fill(round);
        fs::write(&path, &bytes).unwrap();
        let spool = open(&config(), &place.spool()).expect("a new one is begun");
        assert_eq!(spool.depth(), []);
        append(&spool, record("y")).await;
        within(spool.close()).await.unwrap();
        let aside: Vec<_> = files(&place.spool())
            .into_iter()
            .filter(|path| path.to_string_lossy().contains("spool.db.damaged-"))
            .collect();
        assert_eq!(aside.len(), usize::from(round), "{aside:?}");
        assert!(aside.iter().any(|path| fs::read(path).unwrap() == bytes), "it was changed");
    }
}

#[tokio::test]
async fn a_damaged_record_is_told_apart_and_can_be_buried() {
    let place = Temporary::new();
    let spool = open(&config(), &place.spool()).unwrap();
    let damaged = append(&spool, record("a body")).await;
    let whole = append(&spool, record("a body")).await;
    within(spool.close()).await.unwrap();
    let database = Connection::open(place.spool().join("spool.db")).unwrap();
    let mut message: Vec<u8> = database
        .query_one("SELECT message FROM record WHERE id = ?", [damaged.as_bytes()], |row| {
            row.get(0)
        })
        .unwrap();
    *message.last_mut().unwrap() ^= 1;
    database
        .execute("UPDATE record SET message = ? WHERE id = ?", (message, damaged.as_bytes()))
        .unwrap();
    database.close().unwrap();

    let spool = open(&config(), &place.spool()).unwrap();
    let entry = next(&spool).await;
    let read = within(spool.read(damaged)).await;
    assert!(matches!(read, Err(Error::Unreadable { id, .. }) if id == damaged), "{read:?}");
    let death = Death::Unreadable { problem: "damaged".to_owned() };
    within(spool.bury(&entry, death)).await.unwrap();
    assert_eq!(next(&spool).await.id, whole);
    assert_eq!(within(spool.read(whole)).await.unwrap().body, "a body");
    within(spool.close()).await.unwrap();
}

#[tokio::test]
async fn with_a_key_no_file_shows_what_is_stored() {
    let place = Temporary::new();
    let key_file = place.0.path().join("key");
    fs::write(&key_file, "0123456789abcdef".repeat(4)).unwrap();
    let secrets = ["SECRET-BODY", "SECRET-LANE", "SECRET-ONCE", "SECRET-FACT", "SECRET-TARGET"];
    let store = async |config: &config::Spool, directory: &Path| {
        let spool = open(config, directory).unwrap();
        let mut new = record(secrets[0]);
        new.lanes.push(secrets[1].to_owned());
        new.once = Some(secrets[2].to_owned());
        new.message.target = format!("/{}", secrets[4]);
        append(&spool, new).await;
        within(spool.remember(secrets[3].to_owned())).await.unwrap();
        within(spool.bury(&next(&spool).await, Death::NoRoute)).await.unwrap();
        let content: Vec<_> = files(directory).iter().flat_map(fs::read).collect();
        within(spool.close()).await.unwrap();
        let content = content.concat();
        secrets.map(|secret| content.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()))
    };
    let sealed = config::Spool { key_file: Some(key_file), ..config() };
    assert_eq!(store(&sealed, &place.spool()).await, [false; 5]);
    // The search finds what is there. Keys and facts are digests even without a key.
    let plain = store(&config(), &place.0.path().join("plain")).await;
    assert_eq!(plain, [true, true, false, false, true]);
}
