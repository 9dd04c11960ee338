//! `cargo xtask test`: everything that must hold before a change is merged.
//!
//! Stages run one after the other and all of them run, whatever fails: a formatting slip must
//! not hide a failing test. Each prints a heading and its time, and a summary closes the run,
//! with what failed in tests.
//! The end-to-end tests need root; without it they fail rather than pass unseen.

use crate::{
    command::{cargo, run_and_read},
    failures::Failures,
    python, setup,
};
use anyhow::Result;
use std::{
    env,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

/// Tells the tests to run their long trials in full.
const SOAK: &str = "EXOGATE_SOAK";
/// Tells them the kernels that the program has to work on.
const KERNELS: &str = "EXOGATE_KERNELS";
/// Seconds for each fuzz target.
const FUZZ: &str = "5";
const FUZZ_SOAK: &str = "60";

/// How much to test.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope {
    /// Leaves out the end-to-end tests.
    pub(crate) quick: bool,
    /// Runs the long trials in full; otherwise they run with reduced counts.
    pub(crate) soak: bool,
    /// Tests the program on the kernels of all suites; otherwise on the two oldest.
    pub(crate) kernels: bool,
}

/// One thing that is checked.
struct Stage {
    name: &'static str,
    command: Command,
}

/// Runs all stages; the exit code is 1 if any of them failed.
pub(crate) fn run_all(scope: Scope) -> Result<ExitCode> {
    let begin = Instant::now();
    let mut results = vec![timed("setup", || setup::for_tests(scope.kernels))];
    let mut failures = Failures::default();
    for Stage { name, mut command } in stages(scope)? {
        results.push(timed(name, || run_and_read(&mut command, |line| failures.read(line))));
    }

    println!("\n== summary");
    failures.summary().iter().for_each(|line| println!("{line}"));
    for StageResult { name, passed, time } in &results {
        println!("{} {name:<10} {:>7.1} s", verdict(*passed), time.as_secs_f64());
    }
    let passed = results.iter().all(|result| result.passed);
    println!("{} {:<10} {:>7.1} s", verdict(passed), "all", begin.elapsed().as_secs_f64());
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stages(scope: Scope) -> Result<Vec<Stage>> {
    let stage = |name, arguments: &[&str]| {
        let mut command = cargo();
        command.args(arguments);
        Stage { name, command }
    };
    let mut tests = vec!["test", "--workspace", "--no-fail-fast"];
    if scope.quick {
        tests.extend(["--exclude", "exogate-tests"]);
    }
    let mut test = stage("test", &tests);
    if scope.soak {
        test.command.env(SOAK, "1");
    }
    if scope.kernels {
        test.command.env(KERNELS, setup::kernels().join(" "));
    }
    // Without it the tests say what is missing.
    if let Ok(interpreter) = python::interpreter() {
        test.command.env(python::VARIABLE, interpreter);
    }
    let mut stages = vec![
        stage("format", &["fmt", "--all", "--check"]),
        stage("format", &["fmt", "--check", "--manifest-path", "tests/fuzz/Cargo.toml"]),
        stage("lint", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        // The end-to-end tests start the agent, which cargo does not build for another
        // package's tests.
        stage("build", &["build", "--package", "exogate"]),
    ];
    if !scope.quick {
        // The end-to-end tests install it.
        let mut command = Command::new(env::current_exe()?);
        command.args(["package", "--development"]);
        stages.push(Stage { name: "package", command });
    }
    stages.push(test);
    if !scope.quick {
        let mut command = Command::new(env::current_exe()?);
        command.args(["fuzz", "--seconds", if scope.soak { FUZZ_SOAK } else { FUZZ }]);
        stages.push(Stage { name: "fuzz", command });
        // Its figures mean little here, but it stops if a filter judges a packet wrongly.
        let mut command = Command::new(env::current_exe()?);
        command.args(["bench", "packets", "--quick"]);
        stages.push(Stage { name: "bench", command });
    }
    Ok(stages)
}

/// How a stage ended.
struct StageResult {
    name: &'static str,
    passed: bool,
    time: Duration,
}

fn timed(name: &'static str, work: impl FnOnce() -> Result<()>) -> StageResult {
    println!("\n== {name}");
    let begin = Instant::now();
    let passed = match work() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("error: {error:#}");
            false
        }
    };
    let time = begin.elapsed();
    println!("-- {name}: {} in {:.1} s", verdict(passed), time.as_secs_f64());
    StageResult { name, passed, time }
}

fn verdict(passed: bool) -> &'static str {
    if passed { "ok    " } else { "FAILED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_arguments(scope: Scope) -> Vec<String> {
        let stage = stages(scope).unwrap().into_iter().find(|stage| stage.name == "test").unwrap();
        stage.command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_failing_test_does_not_stop_the_others() {
        assert_eq!(test_arguments(Scope::default()), ["test", "--workspace", "--no-fail-fast"]);
    }

    #[test]
    fn only_soak_runs_the_long_trials_in_full() {
        let asks = |soak| {
            let stages = stages(Scope { soak, ..Scope::default() }).unwrap();
            let trials =
                stages.iter().any(|stage| stage.command.get_envs().any(|(name, _)| name == SOAK));
            let fuzz = stages.iter().any(|stage| stage.command.get_args().any(|a| a == FUZZ_SOAK));
            (trials, fuzz)
        };
        assert_eq!(asks(true), (true, true));
        assert_eq!(asks(false), (false, false));
    }

    #[test]
    fn quick_leaves_out_the_end_to_end_tests_and_fuzzing() {
        let arguments = test_arguments(Scope { quick: true, ..Scope::default() });
        assert!(arguments.ends_with(&["--exclude".to_owned(), "exogate-tests".to_owned()]));
        let stages = stages(Scope { quick: true, ..Scope::default() }).unwrap();
        assert!(stages.iter().all(|stage| !matches!(stage.name, "fuzz" | "bench")));
    }
}
