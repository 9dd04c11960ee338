//! What is said at the end, and printed on the way to it.

use std::{fmt::Write, fs, path::Path};

use anyhow::Result;

use super::support::median;

/// Markdown that is printed as it is made, and the targets that were held against it.
#[derive(Default)]
pub struct Report {
    text: String,
    targets: Vec<[String; 3]>,
}

impl Report {
    /// A line.
    pub fn line(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
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
        let verdict = if is_met { "met" } else { "**missed**" };
        self.targets.push([wanted.to_owned(), found, verdict.to_owned()]);
    }

    /// Prints the targets, and keeps everything in a file.
    pub fn finish(mut self, path: &Path) -> Result<()> {
        if !self.targets.is_empty() {
            self.table("Targets", &["target", "found", ""]);
            for target in std::mem::take(&mut self.targets) {
                self.row(&target);
            }
        }
        fs::write(path, &self.text)?;
        println!("\nkept in {}", path.display());
        Ok(())
    }
}

/// The median of some measurements.
pub fn middle(values: &[f64]) -> f64 {
    median(values.to_vec()).middle
}

/// A median, and the least and the most.
pub fn figure(values: &[f64], decimals: usize) -> String {
    let range = median(values.to_vec());
    let mut text = String::new();
    for (value, end) in [(range.middle, " ("), (range.least, ".."), (range.most, ")")] {
        // Writing to a string cannot fail.
        let _ = write!(text, "{value:.decimals$}{end}");
    }
    text
}
