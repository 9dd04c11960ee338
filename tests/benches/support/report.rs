//! What is said at the end, and printed on the way to it.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::machine::machine;

/// Markdown that is printed and kept in a file as it is made, so that a run that ends early
/// leaves what it has; and the targets that were held against it.
pub struct Report {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    targets: Vec<Target>,
}

/// What was wanted and found.
struct Target {
    wanted: String,
    found: String,
    /// What nothing can exceed here, where that is known.
    limit: Option<String>,
    is_met: bool,
}

impl Report {
    /// The report of a benchmark, which begins with the facts of the machine.
    pub fn begin(name: &str) -> Result<Self> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
        fs::create_dir_all(&directory)?;
        let path = directory.join(name).with_extension("md");
        let file = File::create(&path)?;
        let mut report = Self { directory, path, file, targets: Vec::new() };
        report.line(&format!("{}.", machine()));
        Ok(report)
    }

    /// Where it is kept, and what belongs to it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A line.
    pub fn line(&mut self, line: &str) {
        println!("{line}");
        writeln!(self.file, "{line}").expect("the report can be written");
    }

    /// A title and the head of a table.
    pub fn table(&mut self, title: &str, columns: &[&str]) {
        self.line(&format!("\n{title}\n"));
        self.row(columns);
        self.row(&vec!["---"; columns.len()]);
    }

    /// A row of a table.
    pub fn row<T: AsRef<str>>(&mut self, cells: &[T]) {
        let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
        self.line(&format!("| {} |", cells.join(" | ")));
    }

    /// A target, and whether it is met.
    pub fn target(&mut self, wanted: &str, found: String, is_met: bool) {
        self.targets.push(Target { wanted: wanted.to_owned(), found, limit: None, is_met });
    }

    /// The same, with what a program that does nothing would reach, if that was measured.
    pub fn limited(&mut self, wanted: &str, found: String, limit: Option<String>, is_met: bool) {
        self.targets.push(Target { wanted: wanted.to_owned(), found, limit, is_met });
    }

    /// Adds the targets, and says where all of it is.
    pub fn finish(mut self) -> Result<()> {
        let targets = std::mem::take(&mut self.targets);
        let are_limited = targets.iter().any(|target| target.limit.is_some());
        if are_limited {
            self.table("Targets", &["target", "found", "a program that does nothing", ""]);
        } else if !targets.is_empty() {
            self.table("Targets", &["target", "found", ""]);
        }
        for Target { wanted, found, limit, is_met } in targets {
            let verdict = if is_met { "met" } else { "**missed**" }.to_owned();
            let limit = are_limited.then(|| limit.unwrap_or_else(|| "-".to_owned()));
            let cells = [Some(wanted), Some(found), limit, Some(verdict)];
            self.row(&cells.into_iter().flatten().collect::<Vec<_>>());
        }
        println!("\nkept in {}", self.path.display());
        Ok(())
    }
}

/// A median with its range.
pub struct Median {
    pub least: f64,
    pub middle: f64,
    pub most: f64,
}

/// The median of some measurements, with the least and the most.
pub fn median(values: &[f64]) -> Median {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values[values.len() / 2];
    Median { least: values[0], middle, most: values[values.len() - 1] }
}

/// The median of some measurements.
pub fn middle(values: &[f64]) -> f64 {
    median(values).middle
}

/// What comes of the measurements of two that took turns, round by round: within a round the
/// machine's pace was the same for both.
pub fn paired(one: &[f64], other: &[f64], combine: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    assert_eq!(one.len(), other.len(), "both took part in each round");
    one.iter().zip(other).map(|(one, other)| combine(*one, *other)).collect()
}

/// A median, and the least and the most, with as many decimals as tell it from a goal.
pub fn beside(values: &[f64], goal: f64) -> String {
    let off = (middle(values) - goal).abs();
    let decimals = (2..5).find(|decimals| off >= 0.1_f64.powi(*decimals)).unwrap_or(5);
    figure(values, decimals as usize)
}

/// A median of seconds, and the least and the most, in the unit that it is told in best.
pub fn time(seconds: &[f64]) -> String {
    let (unit, scale) = match middle(seconds) {
        ..1e-3 => ("µs", 1e6),
        ..1.0 => ("ms", 1e3),
        _ => ("s", 1.0),
    };
    let values: Vec<f64> = seconds.iter().map(|seconds| seconds * scale).collect();
    let decimals = match middle(&values) {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{} {unit}", figure(&values, decimals))
}

/// A number with commas between its thousands.
pub fn thousands(number: usize) -> String {
    match (number / 1_000, number % 1_000) {
        (0, rest) => rest.to_string(),
        (above, rest) => format!("{},{rest:03}", thousands(above)),
    }
}

/// A median, and the least and the most.
pub fn figure(values: &[f64], decimals: usize) -> String {
    let Median { least, middle, most } = median(values);
    format!("{middle:.decimals$} ({least:.decimals$}..{most:.decimals$})")
}
