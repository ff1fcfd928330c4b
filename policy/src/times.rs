//! How long the operators of a model take on a processor, as measured: points by tokens and a second number, and what is
//! said of a time that comes from them or from elsewhere.

use crate::units::Nanos;
use thiserror::Error;

/// A part of a layer, or the head, that is measured as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// Attention or another mixer with its projections, norms, the router and shared experts: by the step's tokens and
    /// the tokens that each request has in its cache.
    Mixer,
    /// One routed expert, by the tokens that chose it.
    Expert,
    /// All blocks of a layer step together: by the step's tokens and the number of distinct blocks.
    Experts,
    /// The output head, by the requests that get a token.
    Head,
}

/// All operators, with their names in machine files.
pub const OPERATORS: [(Operator, &str); 4] = [
    (Operator::Mixer, "mixer"),
    (Operator::Expert, "expert"),
    (Operator::Experts, "experts"),
    (Operator::Head, "head"),
];

/// Where the time of an operator comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// Between points that were measured.
    Measured,
    /// From measured points by the roofline: beyond them, in another format, or of a layer that is not the one measured.
    Fitted,
    /// From bytes and operations at the processor's sustained rates.
    Roofline,
    /// From nowhere: the run takes no time for it.
    Missing,
}

/// All of them, in order, with their names in reports.
pub const BASES: [(Basis, &str); 4] = [
    (Basis::Measured, "measured"),
    (Basis::Fitted, "fitted"),
    (Basis::Roofline, "roofline"),
    (Basis::Missing, "missing"),
];

/// Why measured points are no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TimesError {
    /// There are none.
    #[error("no measured point")]
    Empty,
    /// A number of tokens, or a time, is zero.
    #[error("the point at {0} tokens has no tokens, or no time")]
    Zero(u32),
    /// Tokens, or the second number, do not grow.
    #[error("{after} follows on {before}: they must grow")]
    Order {
        /// The number before.
        before: u32,
        /// The number that should be larger.
        after: u32,
    },
}

/// The times of one operator at one second number, in growing numbers of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Curve {
    /// The second number: cached tokens, or distinct blocks.
    pub by: u32,
    /// Tokens and the time they take, launches included.
    pub points: Vec<(u32, Nanos)>,
}

/// Measured times of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeTable {
    curves: Vec<Curve>,
}

impl TimeTable {
    /// A table of curves, in growing second numbers. With one curve only, that number does not matter.
    ///
    /// # Errors
    /// See [`TimesError`].
    pub fn new(curves: Vec<Curve>) -> Result<TimeTable, TimesError> {
        if curves.is_empty() || curves.iter().any(|curve| curve.points.is_empty()) {
            return Err(TimesError::Empty);
        }
        growing(curves.iter().map(|curve| curve.by))?;
        for curve in &curves {
            let nothing = |point: &&(u32, Nanos)| point.0 == 0 || point.1 == Nanos::ZERO;
            if let Some(&(tokens, _)) = curve.points.iter().find(nothing) {
                return Err(TimesError::Zero(tokens));
            }
            growing(curve.points.iter().map(|point| point.0))?;
        }
        Ok(TimeTable { curves })
    }

    /// The table of a processor of so many per cent of the speed.
    pub fn at_percent(&self, percent: u64) -> TimeTable {
        let point =
            |&(tokens, time): &(u32, Nanos)| (tokens, scaled(time, Nanos(100), Nanos(percent)).max(Nanos(1)));
        let curve = |curve: &Curve| Curve { by: curve.by, points: curve.points.iter().map(point).collect() };
        TimeTable { curves: self.curves.iter().map(curve).collect() }
    }

    /// The measured curves.
    pub fn curves(&self) -> &[Curve] {
        &self.curves
    }

    /// Whether times depend on the second number.
    pub fn has_second(&self) -> bool {
        self.curves.len() > 1
    }

    /// The time at a point: linear in tokens between two points of a curve, and linear in the second number between two
    /// curves. Where there is no such pair, `roofline` carries the nearest point there: it keeps its ratio to it.
    pub fn time(&self, tokens: u32, by: u32, roofline: impl Fn(u32, u32) -> Nanos) -> (Nanos, Basis) {
        let on = |curve: &Curve| curve.time(tokens, |tokens| roofline(tokens, curve.by));
        let [curve] = &self.curves[..] else {
            let above = self.curves.partition_point(|curve| curve.by < by);
            return match (above.checked_sub(1).map(|below| &self.curves[below]), self.curves.get(above)) {
                (_, Some(curve)) if curve.by == by => on(curve),
                (Some(below), Some(above)) => {
                    let ((low, one), (high, other)) = (on(below), on(above));
                    (between((below.by, low), (above.by, high), by), one.max(other))
                }
                (Some(nearest), None) | (None, Some(nearest)) => {
                    let (time, _) = on(nearest);
                    (scaled(time, roofline(tokens, by), roofline(tokens, nearest.by)), Basis::Fitted)
                }
                (None, None) => (Nanos::ZERO, Basis::Missing),
            };
        };
        curve.time(tokens, |tokens| roofline(tokens, by))
    }
}

impl Curve {
    fn time(&self, tokens: u32, roofline: impl Fn(u32) -> Nanos) -> (Nanos, Basis) {
        let above = self.points.partition_point(|point| point.0 < tokens);
        match (above.checked_sub(1).map(|below| self.points[below]), self.points.get(above)) {
            (_, Some(&(at, time))) if at == tokens => (time, Basis::Measured),
            (Some(below), Some(&above)) => (between(below, above, tokens), Basis::Measured),
            (Some((nearest, time)), None) | (None, Some(&(nearest, time))) => {
                (scaled(time, roofline(tokens), roofline(nearest)), Basis::Fitted)
            }
            (None, None) => (Nanos::ZERO, Basis::Missing),
        }
    }
}

/// `time`, as many times longer as `there` is than `here`.
pub fn scaled(time: Nanos, there: Nanos, here: Nanos) -> Nanos {
    let scaled = u128::from(time.0) * u128::from(there.0) / u128::from(here.0.max(1));
    Nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
}

/// On the line from one point to a later one, at `at` between them.
fn between(low: (u32, Nanos), high: (u32, Nanos), at: u32) -> Nanos {
    let (after, before) = (u128::from(at - low.0), u128::from(high.0 - at));
    let sum = u128::from(low.1.0) * before + u128::from(high.1.0) * after;
    Nanos(u64::try_from(sum / u128::from(high.0 - low.0)).unwrap_or(u64::MAX))
}

fn growing(numbers: impl Iterator<Item = u32>) -> Result<(), TimesError> {
    let mut last = None;
    for after in numbers {
        match last.replace(after) {
            Some(before) if before >= after => return Err(TimesError::Order { before, after }),
            _ => {}
        }
    }
    Ok(())
}

/// What a machine file calls times that hold for any model.
pub const ANY_MODEL: &str = "any";

/// Measured times of the operators of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelTimes {
    /// The model's name, or [`ANY_MODEL`].
    pub model: String,
    /// A table for each operator that was measured, in the order of [`OPERATORS`].
    pub tables: [Option<TimeTable>; OPERATORS.len()],
}

impl ModelTimes {
    /// The table of an operator.
    #[inline]
    pub fn of(&self, operator: Operator) -> Option<&TimeTable> {
        self.tables[operator as usize].as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn curve(by: u32, points: &[(u32, u64)]) -> Curve {
        Curve { by, points: points.iter().map(|&(tokens, time)| (tokens, Nanos(time))).collect() }
    }

    #[test]
    fn times_are_linear_in_both_numbers_and_follow_the_roofline_beyond() {
        let curves = vec![curve(8, &[(1, 50), (4, 80)]), curve(16, &[(2, 100), (4, 140)])];
        let table = TimeTable::new(curves).unwrap();
        let roofline = |tokens: u32, by: u32| Nanos(u64::from(tokens * by));
        let at = |tokens, by| table.time(tokens, by, roofline);
        assert_eq!(at(1, 8), (Nanos(50), Basis::Measured));
        assert_eq!(at(2, 8), (Nanos(60), Basis::Measured));
        assert_eq!(at(3, 12), (Nanos((70 + 120) / 2), Basis::Measured));
        assert_eq!(at(8, 8), (Nanos(160), Basis::Fitted), "twice the tokens of the last point");
        assert_eq!(at(1, 16), (Nanos(50), Basis::Fitted), "half the tokens of the first point");
        assert_eq!(at(1, 12), (Nanos(50), Basis::Fitted), "one of the two curves does not reach there");
        assert_eq!(at(4, 32), (Nanos(280), Basis::Fitted), "twice the blocks of the last curve");
        let faster = table.at_percent(200);
        assert_eq!(faster.time(2, 8, roofline), (Nanos(30), Basis::Measured));
        let one = TimeTable::new(vec![curve(0, &[(1, 50), (4, 80)])]).unwrap();
        assert_eq!(one.time(2, 77, roofline), (Nanos(60), Basis::Measured));
    }

    #[test]
    fn points_that_cannot_be_are_refused() {
        let of = |curves| TimeTable::new(curves).unwrap_err();
        assert_eq!(of(vec![]), TimesError::Empty);
        assert_eq!(of(vec![curve(1, &[])]), TimesError::Empty);
        assert_eq!(of(vec![curve(1, &[(0, 5)])]), TimesError::Zero(0));
        assert_eq!(of(vec![curve(1, &[(3, 0)])]), TimesError::Zero(3));
        let falling = TimesError::Order { before: 4, after: 4 };
        assert_eq!(of(vec![curve(1, &[(4, 5), (4, 6)])]), falling);
        assert_eq!(of(vec![curve(4, &[(1, 5)]), curve(4, &[(1, 5)])]), falling);
    }

    proptest! {
        #[test]
        fn a_time_between_points_is_between_their_times(
            times in prop::array::uniform4(1u64..1 << 60),
            tokens in 2u32..=9,
            by in 3u32..=11,
        ) {
            let [a, b, c, d] = times;
            let table = TimeTable::new(vec![curve(3, &[(2, a), (9, b)]), curve(11, &[(2, c), (9, d)])]).unwrap();
            let (time, basis) = table.time(tokens, by, |_, _| unreachable!());
            prop_assert_eq!(basis, Basis::Measured);
            let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
            prop_assert!((least - 2..=*most).contains(&time.0));
        }
    }
}
