//! Reading Prometheus' text exposition format.

use std::{collections::BTreeMap, fmt, str::FromStr};

use anyhow::{Context, Result, anyhow};

/// One line: a name, its labels, and a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All samples of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<Sample>);

impl Metrics {
    /// The samples.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// The sum over all samples of that name that have these labels, whatever other
    /// labels they have; none if there are no such samples.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &Sample| {
            sample.name == name
                && labels.iter().all(|(name, value)| {
                    sample.labels.get(*name).is_some_and(|found| found == value)
                })
        };
        let values = self.0.iter().filter(|sample| has(sample)).map(|sample| sample.value);
        values.reduce(|sum, value| sum + value)
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|Sample { name, labels, value }| writeln!(f, "{name}{labels:?} {value}"))
    }
}

impl FromStr for Metrics {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).with_context(|| format!("metric {line:?}")));
        samples.collect::<Result<_>>().map(Self)
    }
}

fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"").context("a label without a value")?;
            let (value, after) = unquote(quoted)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.trim_start_matches('}');
    }
    let value = rest.split_whitespace().next().context("no value")?;
    // Rust reads the format's spellings of infinity and NaN.
    let value = value.parse().map_err(|_| anyhow!("{value} is not a number"))?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and what follows.
fn unquote(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next().context("an open quote")? {
            '"' => return Ok((value, rest.as_str())),
            '\\' => match rest.next().context("an open quote")? {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unquoted_and_summed_over() {
        let metrics: Metrics = "# HELP a_total Packets.\n# TYPE a_total counter\n\
            a_total{reason=\"not \\\"ip\\\"\",family=\"v4\"} 3\n\
            a_total{reason=\"unlisted\",family=\"v4\"} 4 1700000000\n\
            a_total{reason=\"unlisted\",family=\"v6\"} 0.5\nup 1\nedge{le=\"+Inf\",} +Inf\n"
            .parse()
            .unwrap();
        assert_eq!(metrics.samples().len(), 5);
        assert_eq!(metrics.sum("a_total", &[("reason", "not \"ip\"")]), Some(3.0));
        assert_eq!(metrics.sum("a_total", &[("reason", "unlisted")]), Some(4.5));
        assert_eq!(metrics.sum("a_total", &[]), Some(7.5));
        assert_eq!(metrics.sum("up", &[]), Some(1.0));
        assert_eq!(metrics.sum("edge", &[("le", "+Inf")]), Some(f64::INFINITY));
        assert_eq!(metrics.sum("a_total", &[("reason", "allowed")]), None);
    }

    #[test]
    fn what_is_not_a_sample_is_refused() {
        for line in ["a", "a{b} 1", "a{b=\"c} 1", "a many"] {
            assert!(line.parse::<Metrics>().is_err(), "{line}");
        }
    }
}
