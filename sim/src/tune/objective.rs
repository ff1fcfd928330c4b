//! What a search makes small or large, and what it has to keep to.

use crate::metric::{Figure, UnknownFigure};
use crate::report::Summary;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A figure to make small or large, and bounds on others.
#[derive(Clone, Debug)]
pub struct Objective {
    /// The figure.
    pub figure: Figure,
    /// Whether more of it is better.
    pub maximize: bool,
    /// What holds in every run.
    pub constraints: Vec<Constraint>,
}

/// A bound on a figure, as in `drift_max<=0.01`.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// The figure.
    pub figure: Figure,
    /// Whether the limit is the most, or the least.
    at_most: bool,
    limit: f64,
}

/// A constraint that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConstraintError {
    /// There is no relation in it.
    #[error("`{0}` is no constraint: write FIGURE<=NUMBER or FIGURE>=NUMBER, for example drift_max<=0.01")]
    Relation(String),
    /// What follows the relation is not a number.
    #[error("`{number}` is no number in `{constraint}`: write a plain one, for example drift_max<=0.01")]
    Number {
        /// What was written.
        constraint: String,
        /// What stands for the number.
        number: String,
    },
    /// The figure is not known.
    #[error(transparent)]
    Figure(#[from] UnknownFigure),
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Constraint, ConstraintError> {
        let parts = |relation| text.split_once(relation);
        let (at_most, (name, number)) = parts("<=")
            .map(|parts| (true, parts))
            .or_else(|| parts(">=").map(|parts| (false, parts)))
            .ok_or_else(|| ConstraintError::Relation(text.to_owned()))?;
        let number = number.trim();
        let limit = number.parse().ok().filter(|limit: &f64| limit.is_finite());
        let limit = limit.ok_or_else(|| ConstraintError::Number {
            constraint: text.to_owned(),
            number: number.to_owned(),
        })?;
        Ok(Constraint { figure: Figure::named(name.trim())?, at_most, limit })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{}{}", self.figure.name(), if self.at_most { "<=" } else { ">=" }, self.limit)
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", if self.maximize { "maximize" } else { "minimize" }, self.figure.name())?;
        self.constraints.iter().try_for_each(|constraint| write!(f, ", {constraint}"))
    }
}

impl Constraint {
    /// How far a run with this figure is from keeping to it: 0 where it does, else a share of the limit; infinite without a sample.
    pub fn violation(&self, value: f64) -> f64 {
        let beyond = if self.at_most { value - self.limit } else { self.limit - value };
        let unit = if self.limit == 0.0 { 1.0 } else { self.limit.abs() };
        if beyond.is_nan() { f64::INFINITY } else { beyond.max(0.0) / unit }
    }
}

/// How good a set of runs is; the least is the best. Runs that keep to the constraints are better than any that do not
/// (Deb, Computer Methods in Applied Mechanics and Engineering 2000).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Score {
    /// The sum over the constraints of the worst run's violation, as a share of the limit.
    pub violation: f64,
    /// The mean figure, negative where more is better. NaN where no run has a sample of it.
    pub value: f64,
}

impl Objective {
    /// What it looks at in a run: its figure, then those of its constraints.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        [&self.figure].into_iter().chain(self.constraints.iter().map(|constraint| &constraint.figure))
    }

    /// The score of a set of runs, each with the values of [`Objective::figures`].
    pub fn score(&self, runs: &[Vec<f64>]) -> Score {
        let column = |place: usize| runs.iter().map(move |run| run.get(place).copied().unwrap_or(f64::NAN));
        let worst = |(place, constraint): (usize, &Constraint)| {
            column(place + 1).map(|value| constraint.violation(value)).fold(0.0, f64::max)
        };
        let mean = column(0).sum::<f64>() / runs.len() as f64;
        Score {
            violation: self.constraints.iter().enumerate().map(worst).sum(),
            value: if self.maximize { -mean } else { mean },
        }
    }
}

/// The mean of a figure over runs.
pub fn mean(figure: &Figure, runs: &[Summary]) -> f64 {
    runs.iter().map(|run| figure.of(run)).sum::<f64>() / runs.len() as f64
}

impl Score {
    /// One number that is in the same order, for an optimiser that looks at the order only.
    pub(super) fn rank(&self) -> f64 {
        /// More than any figure.
        const OUTSIDE: f64 = 1e300;
        match self.violation > 0.0 {
            true => (OUTSIDE * (1.0 + self.violation)).min(f64::MAX),
            false if self.value.is_nan() => f64::MAX,
            false => self.value.clamp(-OUTSIDE, OUTSIDE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_read_as_they_are_printed() {
        for text in ["drift_max<=0.01", "hit_rate>=0.5", "p99_itl_ms<=40"] {
            assert_eq!(text.parse::<Constraint>().unwrap().to_string(), text);
        }
        assert_eq!(" stall <= 1e3".parse::<Constraint>().unwrap().to_string(), "stall_s<=1000");
        let wrong = |text: &str| text.parse::<Constraint>().unwrap_err().to_string();
        assert!(wrong("drift_max<0.01").contains("write FIGURE<=NUMBER"));
        assert!(wrong("drift_max<=1 %").contains("`1 %` is no number"));
        assert!(wrong("drift_max<=nan").contains("no number"));
        assert!(wrong("drift<=1").contains("`drift` is no figure of a run"));
    }

    #[test]
    fn what_keeps_to_the_constraints_comes_first() {
        let rank = |violation, value| Score { violation, value }.rank();
        let ordered = [
            rank(0.0, f64::NEG_INFINITY),
            rank(0.0, -3.0),
            rank(0.0, 1e9),
            rank(1e-9, -3.0),
            rank(0.5, 0.0),
            rank(f64::INFINITY, 0.0),
        ];
        assert!(ordered.is_sorted_by(|a, b| a < b || *a >= 1e300), "{ordered:?}");
        assert!(rank(0.0, 1e9) < rank(1e-9, -3.0) && rank(1e-9, 0.0) < rank(0.5, 0.0));
        assert_eq!(rank(0.0, f64::NAN), f64::MAX);
    }
}
