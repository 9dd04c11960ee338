//! What the benchmarks share: their arguments, and how they say what they found.

mod machine;
mod report;

pub use self::report::{Report, beside, figure, median, middle, paired, thousands, time};

/// What a benchmark is told behind its name.
pub struct Arguments(Vec<String>);

impl Arguments {
    /// The benchmark's name and its arguments.
    pub fn of_this_program(mut all: impl Iterator<Item = String>) -> (String, Self) {
        let name = all.nth(1).unwrap_or_default();
        (name, Self(all.collect()))
    }

    /// Whether there is such an option.
    pub fn has(&self, option: &str) -> bool {
        self.0.iter().any(|argument| argument == option)
    }

    /// What follows an option.
    pub fn value(&self, option: &str) -> Option<&str> {
        let place = self.0.iter().position(|argument| argument == option)?;
        self.0.get(place + 1).map(String::as_str)
    }

    /// Whether it is to be short, to see that it works.
    pub fn quick(&self) -> bool {
        self.has("--quick")
    }

    /// All that are no options.
    pub fn words(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect()
    }
}
