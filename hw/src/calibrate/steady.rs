//! A time that is measured until it settles.

use crate::lane::{now, since};
use policy::units::Nanos;
use std::fmt;

/// Times of one thing, measured over and over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steady {
    sorted: Vec<Nanos>,
}

/// The least number of times, and the most.
const TIMES: (usize, usize) = (9, 400);
/// The middle half of the times lies within this share of the median.
const SPREAD: f64 = 0.05;

impl Steady {
    /// Measures until the middle half of the times is narrow, or until `patience` ends and there are the least. `measure`
    /// gives some times at once.
    pub(super) fn measure<E>(
        patience: Nanos,
        mut measure: impl FnMut() -> Result<Vec<Nanos>, E>,
    ) -> Result<Steady, E> {
        let start = now();
        // The first round warms up: caches, clocks, pages.
        measure()?;
        let mut steady = Steady { sorted: Vec::new() };
        loop {
            steady.sorted.extend(measure()?);
            steady.sorted.sort_unstable();
            let enough = steady.sorted.len() >= TIMES.0;
            let most = steady.sorted.len() >= TIMES.1;
            if enough && (steady.settled() || most || since(start) > patience) {
                return Ok(steady);
            }
        }
    }

    /// Measures as [`Steady::measure`] does what may take long by itself: three times are the least, and what takes longer than
    /// `patience` is run once.
    pub(crate) fn brief<E>(
        patience: Nanos,
        mut measure: impl FnMut() -> Result<Nanos, E>,
    ) -> Result<Steady, E> {
        let start = now();
        let first = measure()?;
        if first > patience {
            return Ok(Steady { sorted: vec![first] });
        }
        let mut steady = Steady { sorted: Vec::new() };
        while steady.sorted.len() < 3 || (steady.sorted.len() < TIMES.1 && since(start) <= patience) {
            steady.sorted.push(measure()?);
        }
        steady.sorted.sort_unstable();
        Ok(steady)
    }

    /// Times that were measured elsewhere.
    pub(crate) fn of(mut times: Vec<Nanos>) -> Steady {
        times.sort_unstable();
        Steady { sorted: times }
    }

    /// The median.
    pub fn median(&self) -> Nanos {
        self.at(0.5)
    }

    /// The distance between the quartiles, as a share of the median.
    pub fn spread(&self) -> f64 {
        let width = self.at(0.75).0.saturating_sub(self.at(0.25).0);
        width as f64 / self.median().0.max(1) as f64
    }

    /// Whether the spread is small.
    pub fn settled(&self) -> bool {
        self.spread() <= SPREAD
    }

    /// How many times.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    fn at(&self, share: f64) -> Nanos {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted.get((share * last as f64).round() as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for Steady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.median().0 as f64 / 1e3;
        write!(
            f,
            "median {micros:.1} us of {}, middle half within {:.0} %",
            self.sorted.len(),
            self.spread() * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_until_the_middle_half_is_narrow() {
        let mut round = 0;
        let steady = Steady::measure(Nanos(u64::MAX), || {
            round += 1;
            let wide = round <= 3;
            Ok::<_, ()>((0..10).map(|n| Nanos(1000 + if wide { n * 100 } else { n })).collect())
        });
        let steady = steady.unwrap();
        assert!(steady.settled() && round > 4, "{steady}, {round} rounds");
        assert!(steady.spread() < 0.05 && (1000..1020).contains(&steady.median().0));
    }
}
