//! Counting tests by reading what cargo prints.

use std::collections::BTreeSet;
use std::ops::Add;

/// How many tests ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
    /// Returned without checking anything, and said so.
    pub(crate) skipped: usize,
}

impl Count {
    pub(crate) fn total(self) -> usize {
        self.passed + self.failed + self.ignored + self.skipped
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
            skipped: self.skipped + other.skipped,
        }
    }
}

/// Reads the output line by line.
///
/// With `--show-output` a test binary repeats what its passing tests printed. A test that lacks its device
/// prints a line that begins with SKIPPED and passes: it is counted as skipped instead. What tests print is
/// never taken for a result.
#[derive(Default)]
pub(crate) struct Counter {
    count: Count,
    part: Part,
    test: String,
    skipped: BTreeSet<String>,
}

/// Where in the output of a test binary a line stands. Both headings come twice: before what the tests
/// printed and before the list of their names.
#[derive(Default, Clone, Copy, PartialEq)]
enum Part {
    #[default]
    Running,
    PassedOutput,
    PassedNames,
    FailedOutput,
    FailedNames,
}

impl Counter {
    /// Takes one line; true if a reader wants to see it.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        self.part = match (line, self.part) {
            ("successes:", Part::Running) => Part::PassedOutput,
            ("successes:", Part::PassedOutput) => Part::PassedNames,
            ("failures:", Part::Running | Part::PassedNames) => Part::FailedOutput,
            ("failures:", Part::FailedOutput) => Part::FailedNames,
            (_, part) => part,
        };
        match self.part {
            Part::PassedOutput => self.read_output(line),
            Part::FailedOutput => true,
            Part::Running | Part::PassedNames | Part::FailedNames => self.read_result(line),
        }
    }

    /// A line that a passing test printed, or the heading of its test.
    fn read_output(&mut self, line: &str) -> bool {
        if let Some(name) = line.strip_prefix("---- ") {
            self.test = name.trim_end_matches(" ----").trim_end_matches(" stdout").to_owned();
        }
        let skips = line.starts_with("SKIPPED");
        if skips {
            self.skipped.insert(self.test.clone());
        }
        skips
    }

    /// A line of the test binary itself, or of parity.
    fn read_result(&mut self, line: &str) -> bool {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.add(result_line(result));
            return true;
        }
        if let (Part::Running, Some(count)) = (self.part, parity_line(line)) {
            self.count = self.count + count;
            return true;
        }
        let passed = line.starts_with("test ") && line.ends_with("... ok");
        let quiet = passed || line.is_empty() || line.starts_with("running ");
        self.part != Part::PassedNames && !quiet
    }

    /// What was counted so far.
    pub(crate) fn count(&self) -> Count {
        self.count
    }

    /// Adds the result of one test binary; its skipped tests are among the passed ones.
    fn add(&mut self, mut result: Count) {
        result.skipped = self.skipped.len().min(result.passed);
        result.passed -= result.skipped;
        self.count = self.count + result;
        self.part = Part::Running;
        self.skipped.clear();
    }
}

/// `ok. 12 passed; 0 failed; 3 ignored; …` after `test result: `.
fn result_line(text: &str) -> Count {
    let mut count = Count::default();
    let (_, numbers) = text.split_once(". ").unwrap_or(("", text));
    for part in numbers.split(';') {
        let mut words = part.split_whitespace();
        let number = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        match words.next() {
            Some("passed") => count.passed = number,
            Some("failed") => count.failed = number,
            Some("ignored") => count.ignored = number,
            _ => {}
        }
    }
    count
}

/// `N passed, M failed`, which parity prints last.
fn parity_line(text: &str) -> Option<Count> {
    let (passed, failed) = text.strip_suffix(" failed")?.split_once(" passed, ")?;
    let (passed, failed) = (passed.parse().ok()?, failed.parse().ok()?);
    Some(Count { passed, failed, ..Count::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(lines: &str) -> (Count, Vec<&str>) {
        let mut counter = Counter::default();
        let shown = lines.lines().filter(|line| counter.read(line)).collect();
        (counter.count(), shown)
    }

    #[test]
    fn results_of_several_binaries_add_up() {
        let (count, shown) = count(
            "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n\
             test result: ok. 10 passed; 0 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(count, Count { passed: 11, failed: 1, ignored: 4, skipped: 0 });
        assert_eq!(shown[0], "test b ... FAILED");
        assert_eq!(shown.len(), 3);
    }

    #[test]
    fn a_test_that_says_skipped_did_not_pass_however_often_it_says_so() {
        let (count, shown) = count(
            "successes:\n\n---- gpu::one stdout ----\nSKIPPED: no GPU\nSKIPPED: again\n\n\
             ---- gpu::two stdout ----\nfine\n\nsuccesses:\n    gpu::one\n    gpu::two\n\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(count, Count { passed: 2, failed: 0, ignored: 0, skipped: 1 });
        assert!(shown.contains(&"SKIPPED: no GPU") && !shown.contains(&"fine"));
    }

    #[test]
    fn what_tests_print_is_not_a_result() {
        let result = "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let (count, _) = count(&format!(
            "successes:\n\n---- a stdout ----\n{result}\n9 passed, 9 failed\n\nsuccesses:\n    a\n\n\
             failures:\n\n---- b stdout ----\n{result}\n\nfailures:\n    b\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        ));
        assert_eq!(count, Count { passed: 1, failed: 1, ..Count::default() });
    }

    #[test]
    fn what_a_failing_test_printed_is_shown() {
        let (_, shown) = count(
            "successes:\n\nsuccesses:\n    a\n\nfailures:\n\n---- b stdout ----\nleft: 1\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert!(shown.contains(&"left: 1") && !shown.contains(&"    a"));
    }

    #[test]
    fn the_last_line_of_parity_is_counted() {
        let (count, _) = count("case x ok\n114 passed, 2 failed\n");
        assert_eq!(count, Count { passed: 114, failed: 2, ..Count::default() });
    }
}
