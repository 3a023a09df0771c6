//! The one comparator of numbers.
//!
//! A value passes when `|actual − expected| ≤ abs + rel·|expected|`. Before any value is looked at,
//! the lengths must agree and be non-zero and every number on both sides must be finite: NaN and
//! infinities never pass, not even when both sides hold them.

use std::fmt;

/// How far an actual value may lie from the expected one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Absolute part, in the unit of the values.
    pub abs: f64,
    /// Relative part, a fraction of `|expected|`.
    pub rel: f64,
}

impl Tolerance {
    /// Nothing but equality passes.
    pub const EXACT: Self = Self { abs: 0.0, rel: 0.0 };

    /// The widest tolerance that [`assert_close`] accepts; stated in `docs/numerics.md`.
    pub const CAP: Self = Self { abs: 1e-2, rel: 1e-2 };

    /// A tolerance of `abs + rel·|expected|`.
    pub const fn new(abs: f64, rel: f64) -> Self {
        Self { abs, rel }
    }

    /// The distance allowed around `expected`.
    pub fn allowed(&self, expected: f64) -> f64 {
        self.abs + self.rel * expected.abs()
    }

    /// True when both parts are finite, not negative and within [`Tolerance::CAP`].
    pub fn is_acceptable(&self) -> bool {
        (0.0..=Self::CAP.abs).contains(&self.abs) && (0.0..=Self::CAP.rel).contains(&self.rel)
    }
}

/// Why a comparison failed, or that it passed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Every value lies within the tolerance.
    Pass,
    /// The two sides have different lengths.
    Length {
        /// Length of the actual side.
        actual: usize,
        /// Length of the expected side.
        expected: usize,
    },
    /// Both sides are empty, so nothing was compared.
    Empty,
    /// A part of the tolerance is NaN, infinite or negative.
    Tolerance,
    /// NaN or an infinity stands on one side or on both.
    NotFinite {
        /// Positions where one side is not finite.
        count: usize,
        /// The first such position.
        index: usize,
        /// The actual value there.
        actual: f64,
        /// The expected value there.
        expected: f64,
    },
    /// At least one value lies outside the tolerance.
    Over,
}

/// The value that uses up most of its tolerance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worst {
    /// Flat row-major index.
    pub index: usize,
    /// The actual value.
    pub actual: f64,
    /// The expected value.
    pub expected: f64,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a report says nothing unless `passed` is asked or it is printed"]
pub struct Report {
    /// What was compared.
    pub name: String,
    /// How many values were compared; 0 when the comparison stopped before the values.
    pub count: usize,
    /// How many values lie outside the tolerance.
    pub over: usize,
    /// Largest `|actual − expected|`; NaN when no value was compared.
    pub max_abs: f64,
    /// Largest `|actual − expected| / |expected|` over the values with `expected ≠ 0`.
    pub max_rel: f64,
    /// Where the tolerance is used up most; `None` when no value was compared.
    pub worst: Option<Worst>,
    /// The tolerance asked for.
    pub tolerance: Tolerance,
    /// Pass, or the reason of the failure.
    pub verdict: Verdict,
}

impl Report {
    /// True when every value was compared and lies within the tolerance.
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Pass
    }

    /// Ends the test with the report's text unless it passed.
    ///
    /// # Panics
    /// If the comparison failed.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.passed(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: ", self.name)?;
        match self.verdict {
            Verdict::Length { actual, expected } => {
                return write!(f, "has {actual} values, expected {expected}");
            }
            Verdict::Empty => return write!(f, "is empty on both sides, nothing was compared"),
            Verdict::Tolerance => {
                let Tolerance { abs, rel } = self.tolerance;
                return write!(f, "tolerance abs {abs} rel {rel} is not finite and positive");
            }
            Verdict::NotFinite { count, index, actual, expected } => {
                return write!(
                    f,
                    "{count} positions are not finite, first at [{index}]: {actual}, expected {expected}"
                );
            }
            Verdict::Pass => write!(f, "{} values within tolerance", self.count)?,
            Verdict::Over => write!(f, "{} of {} values over tolerance", self.over, self.count)?,
        }
        if let Some(worst) = self.worst {
            write!(
                f,
                "; worst at [{}]: {}, expected {}",
                worst.index, worst.actual, worst.expected
            )?;
        }
        write!(
            f,
            "; max abs {:.3e}, max rel {:.3e}; allowed {:e} + {:e}·|expected|",
            self.max_abs, self.max_rel, self.tolerance.abs, self.tolerance.rel
        )
    }
}

/// Compares two sequences of f32 or f64, value by value.
pub fn compare<A, E>(name: &str, actual: &[A], expected: &[E], tolerance: Tolerance) -> Report
where
    A: Copy + Into<f64>,
    E: Copy + Into<f64>,
{
    let mut report = Report {
        name: name.to_owned(),
        count: 0,
        over: 0,
        max_abs: f64::NAN,
        max_rel: f64::NAN,
        worst: None,
        tolerance,
        verdict: Verdict::Pass,
    };
    if actual.len() != expected.len() {
        report.verdict = Verdict::Length { actual: actual.len(), expected: expected.len() };
        return report;
    }
    if actual.is_empty() {
        report.verdict = Verdict::Empty;
        return report;
    }
    let usable = |part: f64| part.is_finite() && part >= 0.0;
    if !usable(tolerance.abs) || !usable(tolerance.rel) {
        report.verdict = Verdict::Tolerance;
        return report;
    }
    let pairs = || actual.iter().zip(expected).map(|(&a, &e)| (a.into(), e.into())).enumerate();
    let mut not_finite = pairs().filter(|(_, (a, e))| !(a.is_finite() && e.is_finite()));
    if let Some((index, (actual, expected))) = not_finite.next() {
        let count = 1 + not_finite.count();
        report.verdict = Verdict::NotFinite { count, index, actual, expected };
        return report;
    }
    measure(&mut report, pairs());
    report
}

/// Compares two sequences of integers for equality.
pub fn compare_integers(name: &str, actual: &[i64], expected: &[i64]) -> Report {
    // The values go through f64 for the report alone; equality is decided on the integers.
    let as_f64 = |values: &[i64]| values.iter().map(|&v| v as f64).collect::<Vec<_>>();
    let mut report = compare(name, &as_f64(actual), &as_f64(expected), Tolerance::EXACT);
    if report.passed() && actual != expected {
        report.over = actual.iter().zip(expected).filter(|(a, e)| a != e).count();
        report.verdict = Verdict::Over;
    }
    report
}

/// Ends the test unless the two sequences are close; the shape of every kernel test.
///
/// # Panics
/// If the comparison fails, or if `tolerance` is wider than [`Tolerance::CAP`].
#[track_caller]
pub fn assert_close<A, E>(name: &str, actual: &[A], expected: &[E], tolerance: Tolerance)
where
    A: Copy + Into<f64>,
    E: Copy + Into<f64>,
{
    assert!(
        tolerance.is_acceptable(),
        "`{name}`: tolerance abs {} rel {} is outside 0..=cap, the cap is abs {} rel {}",
        tolerance.abs,
        tolerance.rel,
        Tolerance::CAP.abs,
        Tolerance::CAP.rel
    );
    compare(name, actual, expected, tolerance).assert();
}

/// Fills the figures of a report from pairs that are known to be finite.
fn measure(report: &mut Report, pairs: impl Iterator<Item = (usize, (f64, f64))>) {
    let mut worst_excess = f64::NEG_INFINITY;
    (report.max_abs, report.max_rel) = (0.0, 0.0);
    for (index, (actual, expected)) in pairs {
        let distance = (actual - expected).abs();
        let excess = distance - report.tolerance.allowed(expected);
        report.count += 1;
        report.over += usize::from(excess > 0.0 || excess.is_nan());
        report.max_abs = report.max_abs.max(distance);
        if expected != 0.0 {
            report.max_rel = report.max_rel.max(distance / expected.abs());
        }
        if excess > worst_excess {
            worst_excess = excess;
            report.worst = Some(Worst { index, actual, expected });
        }
    }
    report.verdict = if report.over == 0 { Verdict::Pass } else { Verdict::Over };
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance::new(1e-6, 1e-5);

    fn verdict(actual: &[f64], expected: &[f64]) -> Verdict {
        let report = compare("x", actual, expected, TOLERANCE);
        assert_eq!(report.passed(), report.verdict == Verdict::Pass);
        report.verdict
    }

    #[test]
    fn equal_and_near_values_pass() {
        assert_eq!(verdict(&[1.0, -2.0, 0.0], &[1.0, -2.0, 0.0]), Verdict::Pass);
        assert_eq!(verdict(&[100.0 + 9e-4, 5e-7], &[100.0, 0.0]), Verdict::Pass);
        assert_close("f32 against f64", &[0.5f32, 1.5], &[0.5f64, 1.5], Tolerance::EXACT);
    }

    #[test]
    fn nan_fails_on_either_side_and_on_both() {
        let nan = f64::NAN;
        for (actual, expected) in [(nan, 1.0), (1.0, nan), (nan, nan)] {
            let found = verdict(&[0.0, actual], &[0.0, expected]);
            assert!(matches!(found, Verdict::NotFinite { index: 1, count: 1, .. }), "{found:?}");
        }
        assert!(!compare("x", &[f32::NAN], &[0.0f32], Tolerance::new(1e30, 1e30)).passed());
    }

    #[test]
    fn infinity_fails_on_either_side_and_on_both() {
        let inf = f64::INFINITY;
        for (actual, expected) in [(inf, 1.0), (1.0, inf), (inf, inf), (-inf, -inf)] {
            let found = verdict(&[actual, 2.0], &[expected, 2.0]);
            assert!(matches!(found, Verdict::NotFinite { index: 0, .. }), "{found:?}");
        }
    }

    #[test]
    fn one_element_short_fails_before_the_values() {
        assert_eq!(
            verdict(&[1.0, 2.0], &[1.0, 2.0, 3.0]),
            Verdict::Length { actual: 2, expected: 3 }
        );
        assert_eq!(
            verdict(&[1.0, 2.0, 3.0], &[1.0, 2.0]),
            Verdict::Length { actual: 3, expected: 2 }
        );
        assert_eq!(verdict(&[], &[1.0]), Verdict::Length { actual: 0, expected: 1 });
    }

    #[test]
    fn empty_input_fails() {
        assert_eq!(verdict(&[], &[]), Verdict::Empty);
    }

    #[test]
    fn expected_zero_is_held_to_the_absolute_part() {
        let report = compare("x", &[0.0, 1e-3], &[0.0, 0.0], TOLERANCE);
        assert_eq!((report.verdict, report.over), (Verdict::Over, 1));
        assert_eq!(report.worst, Some(Worst { index: 1, actual: 1e-3, expected: 0.0 }));
        assert_eq!(verdict(&[0.0], &[1e-3]), Verdict::Over);
    }

    #[test]
    fn a_flipped_sign_fails() {
        assert_eq!(verdict(&[0.3, -0.7, 0.2], &[0.3, 0.7, 0.2]), Verdict::Over);
    }

    #[test]
    fn a_permuted_row_fails() {
        let expected = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // two rows of three
        let report = compare("x", &[1.0, 2.0, 3.0, 5.0, 6.0, 4.0], &expected, TOLERANCE);
        assert_eq!((report.verdict, report.over), (Verdict::Over, 3));
        assert_eq!(verdict(&[4.0, 5.0, 6.0, 1.0, 2.0, 3.0], &expected), Verdict::Over);
    }

    #[test]
    fn a_tolerance_that_cannot_fail_is_refused() {
        for tolerance in [
            Tolerance::new(f64::NAN, 0.0),
            Tolerance::new(0.0, f64::INFINITY),
            Tolerance::new(-1e-9, 0.0),
        ] {
            let report = compare("x", &[1.0], &[1.0], tolerance);
            assert_eq!(report.verdict, Verdict::Tolerance);
            assert!(!tolerance.is_acceptable());
        }
        assert!(!Tolerance::new(0.1, 0.0).is_acceptable());
        assert!(!Tolerance::new(0.0, 0.1).is_acceptable());
    }

    #[test]
    #[should_panic(expected = "the cap is abs 0.01 rel 0.01")]
    fn assert_close_refuses_a_tolerance_above_the_cap() {
        assert_close("x", &[1.0], &[1.0], Tolerance::new(0.5, 0.0));
    }

    #[test]
    #[should_panic(expected = "1 of 2 values over tolerance; worst at [1]: 3, expected 2")]
    fn assert_close_ends_the_test_with_the_worst_value() {
        assert_close("x", &[1.0, 3.0], &[1.0, 2.0], TOLERANCE);
    }

    #[test]
    fn the_report_counts_and_measures() {
        let report = compare("x", &[1.0, 2.2, 3.9], &[1.0, 2.0, 4.0], Tolerance::new(0.15, 0.0));
        assert_eq!((report.count, report.over), (3, 1));
        assert!((report.max_abs - 0.2).abs() < 1e-12 && (report.max_rel - 0.1).abs() < 1e-12);
        assert_eq!(report.worst.map(|w| w.index), Some(1));
    }

    #[test]
    fn integers_are_equal_or_fail() {
        assert!(compare_integers("ids", &[3, 0, 1], &[3, 0, 1]).passed());
        assert!(!compare_integers("ids", &[3, 1, 0], &[3, 0, 1]).passed());
        assert!(!compare_integers("ids", &[3, 0], &[3, 0, 1]).passed());
        assert!(!compare_integers("ids", &[], &[]).passed());
        // Neighbours above 2^53 are one number in f64.
        let big = 1i64 << 53;
        assert!(!compare_integers("ids", &[big], &[big + 1]).passed());
    }
}
