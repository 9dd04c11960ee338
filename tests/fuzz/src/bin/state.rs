//! What the agent finds in its state directory when it starts.
//!
//! Compiled for fuzzing the agent does not insist on the checksum, so that the fuzzer
//! gets behind it.
//!
//! Seeds: tests/fuzz/seeds/state
#![no_main]

use std::{
    fs,
    sync::{Arc, LazyLock},
};

use exogate::{
    allowlist::{Known, StateDirectory, StateError},
    config::Config,
};
use exogate_ebpf::compile::compile;
use exogate_fuzz::{assert_message, directory, open};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(directory);

fuzz_target!(|body: &[u8]| {
    let path = DIRECTORY.path().join("state.json");
    let state = StateDirectory::new(DIRECTORY.path());
    fs::write(&path, body).unwrap();
    match state.load() {
        Ok(known) => {
            let config =
                Config { state_directory: DIRECTORY.path().to_owned(), ..Config::default() };
            let config = Arc::new(config);
            // The start goes on with it, and whatever it is, a table can be made of it or
            // the reason told.
            let list = open(&config).list();
            drop(compile(&list.policy(&config, &[])));
            state.save(&known).unwrap();
            assert_eq!(state.load().unwrap(), known, "what was saved is what is loaded");
        }
        Err(error) => {
            assert_message(&error.to_string());
            let aside = match error {
                StateError::Newer { .. } => "json.newer",
                _ => "json.damaged",
            };
            let aside = fs::read(path.with_extension(aside)).unwrap();
            assert_eq!(aside, body, "it is put aside as it was");
            assert_eq!(state.load().unwrap(), Known::default(), "and is in nobody's way");
        }
    }
});
