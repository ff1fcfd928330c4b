//! The requests that took longest, of any number of them.

use policy::tally::RequestTimes;
use policy::{Nanos, RequestId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// So many are kept.
const MOST: usize = 20;

/// See the module. By time from arrival to last token, the longest first; of equals, the one that came first.
#[derive(Debug, Default)]
pub(super) struct Slowest(BTreeMap<(Reverse<Nanos>, RequestId), RequestTimes>);

impl Slowest {
    /// Takes a request in, if it was served.
    pub(super) fn add(&mut self, times: RequestTimes) {
        if !times.refused {
            self.0.insert((Reverse(times.e2e()), times.request), times);
        }
        if self.0.len() > MOST {
            self.0.pop_last();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RequestTimes> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Time;

    #[test]
    fn the_longest_are_kept_and_refused_ones_are_not() {
        let mut slowest = Slowest::default();
        for number in 0..100_u32 {
            let (request, finished) = (RequestId(number), Time(u64::from(number * 37 % 100 / 2)));
            slowest.add(RequestTimes { request, finished, ..RequestTimes::default() });
        }
        slowest.add(RequestTimes { finished: Time(999), refused: true, ..RequestTimes::default() });
        let kept: Vec<u64> = slowest.iter().map(|times| times.finished.0).collect();
        let expected: Vec<u64> = (40..50).rev().flat_map(|time| [time; 2]).collect();
        assert_eq!(kept, expected);
        assert!(slowest.0.keys().is_sorted());
    }
}
