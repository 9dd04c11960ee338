//! `cargo xtask fuzz`: gives the parsers of outside data bytes that nobody would write.
//!
//! A target is one file in `tests/fuzz/src/bin`, and all there is to say about it: what must
//! hold, and in its header, behind `Seeds:`, the directories whose files it starts from. What
//! it finds on the way is kept in `target/fuzz-corpus`, so that the next run goes on from
//! there, and so is an input that broke something.
//!
//! The compiler's own flags put the coverage counters in, which libFuzzer reads; any stable
//! compiler will do. There is no address sanitizer, because the code that is tested has no
//! unsafe part.

use crate::command::{cargo, run, workspace};
use anyhow::{Context, Result, bail, ensure};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\u{1f}";
/// What an input may take, in seconds and megabytes, before it counts as a failure.
const LONGEST: u32 = 30;
const MOST_MEMORY: u32 = 2048;
const SEEDS: &str = "//! Seeds: ";
const FLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    // Not in the profile, of which the macros would then be others.
    "-Clto=off",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Builds and runs a target, or all of them, for so long each.
pub(crate) fn run_targets(target: Option<&str>, seconds: u32) -> Result<()> {
    let mut targets = targets()?;
    if let Some(name) = target {
        let known: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
        targets.retain(|target| target.name == name);
        ensure!(!targets.is_empty(), "there is no target {name}; there are {}", known.join(", "));
    }
    let programs = build(&targets)?;
    let mut failed = Vec::new();
    for target in &targets {
        if let Err(error) = fuzz(target, &programs.join(&target.name), seconds) {
            eprintln!("error: {error:#}");
            failed.push(target.name.as_str());
        }
    }
    ensure!(failed.is_empty(), "something broke in {}", failed.join(", "));
    Ok(())
}

struct Target {
    name: String,
    seeds: Vec<PathBuf>,
}

fn targets() -> Result<Vec<Target>> {
    let directory = workspace().join("tests/fuzz/src/bin");
    let mut targets = Vec::new();
    for entry in
        fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        let text = fs::read_to_string(&path)?;
        let seeds = seeds(&text);
        let missing = seeds.iter().find(|seeds| !seeds.is_dir());
        if let Some(missing) = missing {
            bail!("{} names seeds that are no directory: {}", path.display(), missing.display());
        }
        targets.push(Target { name: name.to_owned(), seeds });
    }
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(targets)
}

fn seeds(text: &str) -> Vec<PathBuf> {
    let lists = text.lines().filter_map(|line| line.strip_prefix(SEEDS));
    lists.flat_map(str::split_whitespace).map(|path| workspace().join(path)).collect()
}

/// Builds the programs and returns their directory.
fn build(targets: &[Target]) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let output = workspace().join("target");
    let mut command = cargo();
    command
        .current_dir(workspace().join("tests/fuzz"))
        // With a target named, build scripts and macros do without the flags, and are those
        // of every other build.
        .args(["build", "--target", &triple, "--target-dir"])
        .arg(&output)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join(SEPARATOR));
    for target in targets {
        command.args(["--bin", &target.name]);
    }
    run(&mut command)?;
    Ok(output.join(triple).join("debug"))
}

fn fuzz(target: &Target, program: &Path, seconds: u32) -> Result<()> {
    let corpus = workspace().join("target/fuzz-corpus").join(&target.name);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let broken = corpus.with_extension("broken-");
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={LONGEST}"))
        .arg(format!("-rss_limit_mb={MOST_MEMORY}"))
        .arg(format!("-artifact_prefix={}", broken.display()))
        .args(["-verbosity=0", "-print_final_stats=1"])
        .arg(&corpus)
        .args(&target.seeds);
    run(&mut command).with_context(|| {
        format!(
            "{} broke; give the file that is named above to {} to see it again",
            target.name,
            program.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds() {
        let targets = targets().unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            assert!(!target.seeds.is_empty(), "{} names no seeds", target.name);
        }
    }
}
