//! How fast a processor multiplies by weights, as measured: by format and by how many tokens share the weights.

use crate::format::FormatId;
use crate::units::{Bandwidth, Bytes, Nanos};
use thiserror::Error;

/// Why measured points are no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KernelError {
    /// There are none.
    #[error("no measured point")]
    Empty,
    /// Tokens or a rate are zero.
    #[error("the point at {0} tokens has no tokens, or no rate")]
    Zero(u32),
    /// Tokens do not grow.
    #[error("{after} tokens follow on {before}: they must grow")]
    Order {
        /// The number before.
        before: u32,
        /// The number that should be larger.
        after: u32,
    },
    /// More tokens would be done earlier.
    #[error("{many} tokens would be done before {few}")]
    Faster {
        /// The smaller number.
        few: u32,
        /// The larger one, done earlier.
        many: u32,
    },
}

/// Matrix products with weights in one format: bytes of weights a second, by the number of tokens that share them.
/// Between two points time grows linearly in tokens, beyond the last as between the last two; below the first it is that
/// of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRate {
    format: FormatId,
    points: Vec<(u32, Bandwidth)>,
}

impl KernelRate {
    /// Measured rates by tokens, in growing numbers of tokens.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn measured(format: FormatId, points: Vec<(u32, Bandwidth)>) -> Result<KernelRate, KernelError> {
        if points.is_empty() {
            return Err(KernelError::Empty);
        }
        if let Some(&(tokens, _)) = points.iter().find(|(tokens, rate)| *tokens == 0 || rate.0 == 0) {
            return Err(KernelError::Zero(tokens));
        }
        for pair in points.windows(2) {
            let (few, many) = (pair[0].0, pair[1].0);
            if many <= few {
                return Err(KernelError::Order { before: few, after: many });
            }
            if pair[1].1 > pair[0].1 {
                return Err(KernelError::Faster { few, many });
            }
        }
        Ok(KernelRate { format, points })
    }

    /// The rates that each of so many users has of them, all of them at once.
    pub fn shared(&self, users: u32) -> KernelRate {
        let part =
            |&(tokens, rate): &(u32, Bandwidth)| (tokens, Bandwidth((rate.0 / u64::from(users)).max(1)));
        KernelRate { format: self.format, points: self.points.iter().map(part).collect() }
    }

    /// The rates of so many such processors, each of which has an equal part of the weights.
    pub fn striped(&self, stripes: u32) -> KernelRate {
        let times = |&(tokens, rate): &(u32, Bandwidth)| {
            (tokens, Bandwidth(rate.0.saturating_mul(u64::from(stripes.max(1)))))
        };
        KernelRate { format: self.format, points: self.points.iter().map(times).collect() }
    }

    /// The format of the weights.
    pub fn format(&self) -> FormatId {
        self.format
    }

    /// The measured points: tokens, and bytes of weights a second.
    pub fn points(&self) -> &[(u32, Bandwidth)] {
        &self.points
    }

    /// Whether so many tokens are between measured points.
    pub fn reaches(&self, tokens: u32) -> bool {
        let ends = self.points.first().zip(self.points.last());
        ends.is_some_and(|(first, last)| (first.0..=last.0).contains(&tokens))
    }

    /// The time for `tokens` through `bytes` of weights, launch apart.
    pub fn time(&self, bytes: Bytes, tokens: u32) -> Nanos {
        let at = |point: usize| self.points[point].1.time_for(bytes);
        let above = self.points.partition_point(|&(known, _)| known < tokens);
        let (low, high) = match above {
            0 => return at(0),
            _ if self.points.len() == 1 => return at(0),
            above => (above.min(self.points.len() - 1) - 1, above.min(self.points.len() - 1)),
        };
        let (few, many) = (self.points[low].0, self.points[high].0);
        let slope = u128::from(at(high).0.saturating_sub(at(low).0)) * u128::from(tokens - few);
        let more = u64::try_from(slope / u128::from(many - few)).unwrap_or(u64::MAX);
        Nanos(at(low).0.saturating_add(more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_linear_between_points_and_beyond_them() {
        let rates = vec![(2, Bandwidth(4_000_000_000)), (4, Bandwidth(2_000_000_000))];
        let kernel = KernelRate::measured(FormatId(1), rates).unwrap();
        let time = |tokens| kernel.time(Bytes(4000), tokens).0;
        assert_eq!([1, 2, 3, 4, 5, 8].map(time), [1000, 1000, 1500, 2000, 2500, 4000]);
        let one = KernelRate::measured(FormatId(1), vec![(1, Bandwidth(1_000_000_000))]).unwrap();
        assert_eq!(one.time(Bytes(10), 7), Nanos(10));
    }

    #[test]
    fn points_that_cannot_be_are_refused() {
        let rate = Bandwidth;
        let of =
            |points: &[(u32, Bandwidth)]| KernelRate::measured(FormatId(1), points.to_vec()).unwrap_err();
        assert_eq!(of(&[]), KernelError::Empty);
        assert_eq!(of(&[(0, rate(1))]), KernelError::Zero(0));
        assert_eq!(of(&[(1, rate(0))]), KernelError::Zero(1));
        assert_eq!(of(&[(4, rate(9)), (4, rate(9))]), KernelError::Order { before: 4, after: 4 });
        assert_eq!(of(&[(1, rate(5)), (2, rate(6))]), KernelError::Faster { few: 1, many: 2 });
    }
}
