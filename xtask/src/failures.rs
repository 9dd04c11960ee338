//! What failed in a run of tests, taken from what the tests print.
//!
//! A run of all tests prints thousands of lines, and of a log of such a run people, and what
//! shows it to them, often keep the end alone. So the end says what failed and why.

/// Lines of a failure that are repeated from its beginning, where the assertion is, and from
/// its end, where logs have what happened last.
const BEGINNING: usize = 25;
const END: usize = 25;

/// The failures seen so far in the output of one or more test programs.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    failed: Vec<Failure>,
    inside: bool,
}

#[derive(Debug)]
struct Failure {
    test: String,
    output: Vec<String>,
}

impl Failures {
    /// Takes the next line of the output.
    pub(crate) fn read(&mut self, line: &str) {
        let heading = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(test) = heading {
            self.failed.push(Failure { test: test.to_owned(), output: Vec::new() });
            self.inside = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.inside = false;
        } else if self.inside
            && let Some(failure) = self.failed.last_mut()
        {
            failure.output.push(line.to_owned());
        }
    }

    /// What is repeated at the end of a run, line by line.
    pub(crate) fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for Failure { test, output } in &self.failed {
            lines.push(format!("---- {test}"));
            let (beginning, rest) = output.split_at(output.len().min(BEGINNING));
            let left_out = rest.len().saturating_sub(END);
            lines.extend(beginning.iter().cloned());
            if left_out > 0 {
                lines.push(format!("[{left_out} lines are above]"));
            }
            lines.extend(rest.iter().skip(left_out).cloned());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(output: &str) -> Vec<String> {
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.read(line));
        failures.summary()
    }

    #[test]
    fn what_failed_is_repeated_with_its_reason_and_nothing_else_is() {
        let output = "running 3 tests\ntest a ... ok\ntest b::c ... FAILED\ntest d ... FAILED\n\n\
                      failures:\n\n---- b::c stdout ----\nthread 'b::c' panicked:\nno\n\
                      ---- d stdout ----\nnor this\n\nfailures:\n    b::c\n    d\n\n\
                      test result: FAILED. 1 passed; 2 failed\n\nrunning 1 test\ntest e ... ok\n";
        let expected = ["---- b::c", "thread 'b::c' panicked:", "no", "---- d", "nor this", ""];
        assert_eq!(summary(output), expected);
    }

    #[test]
    fn of_a_long_failure_beginning_and_end_are_repeated() {
        let long: String = (0..100).map(|line| format!("line {line}\n")).collect();
        let summary = summary(&format!("---- long stdout ----\n{long}test result: FAILED."));
        assert_eq!(summary.len(), 52);
        assert_eq!(summary[25..28], ["line 24", "[50 lines are above]", "line 75"]);
        assert_eq!(summary[51], "line 99");
    }

    #[test]
    fn where_nothing_failed_nothing_is_said() {
        assert_eq!(summary("test a ... ok\n\ntest result: ok. 1 passed\n"), Vec::<String>::new());
    }
}
