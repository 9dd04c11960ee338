//! The version that Microsoft's web service says is the latest.
//!
//! Seeds: tests/data/samples
#![no_main]

use exogate::source::microsoft365::{Instance, Version, parse_version};
use exogate_fuzz::assert_message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for instance in Instance::ALL {
        match parse_version(body, instance) {
            Ok(version) => {
                let text = version.to_string();
                assert!(text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit()));
                assert_eq!(text.parse::<Version>(), Ok(version));
            }
            Err(problem) => assert_message(&problem.to_string()),
        }
    }
});
