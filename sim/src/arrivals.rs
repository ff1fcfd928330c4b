//! When requests come in, and how long they are.

use policy::{Nanos, Time};
use rand::RngExt;
use rand_distr::{Distribution, Exp, Exp1, Gamma, LogNormal, Weibull};
use rand_pcg::Pcg64Mcg;
use scenarios::{Length, Process};
use std::sync::Arc;
use traces::requests::{MOST_TOKENS, RequestTrace};

/// When requests come in.
#[derive(Clone, Debug)]
pub enum Arrivals {
    /// A fixed number of clients, each sending its next request when the last one is finished.
    Closed {
        /// Clients.
        clients: u32,
        /// The mean of the exponential time between the end of a client's request and its next.
        think: Nanos,
    },
    /// At times drawn from the seed.
    Drawn(Process),
    /// As recorded, with the lengths recorded.
    Recorded(Arc<RequestTrace>),
}

impl Arrivals {
    /// Whether requests come in at the moment at which others finish, so that what runs together does not depend on time.
    pub fn is_closed(&self) -> bool {
        matches!(self, Arrivals::Closed { think: Nanos::ZERO, .. })
    }
}

/// Streams of what is drawn, apart from each other and from those of routing and gates.
const ARRIVAL_STREAM: u64 = 0x6172_7269_7661_6c73;
const PROMPT_STREAM: u64 = 0x7072_6f6d_7074_6c6e;
const THINK_STREAM: u64 = 0x7468_696e_6b74_696d;
const OUTPUT_STREAM: u64 = 0x6f75_7470_7574_6c6e;

pub(crate) fn stream(seed: u64, stream: u64) -> Pcg64Mcg {
    Pcg64Mcg::new(u128::from(seed) << 64 | u128::from(stream))
}

/// The lengths of prompts, one after the other.
pub(crate) fn prompts(length: Length, seed: u64) -> impl Iterator<Item = u32> {
    lengths(length, stream(seed, PROMPT_STREAM))
}

/// The lengths of outputs.
pub(crate) fn outputs(length: Length, seed: u64) -> impl Iterator<Item = u32> {
    lengths(length, stream(seed, OUTPUT_STREAM))
}

/// Think times, one after the other.
#[derive(Debug)]
pub(crate) struct ThinkTimes {
    mean: Nanos,
    random: Pcg64Mcg,
}

impl ThinkTimes {
    pub(crate) fn new(arrivals: &Arrivals, seed: u64) -> ThinkTimes {
        let mean = match arrivals {
            Arrivals::Closed { think, .. } => *think,
            _ => Nanos::ZERO,
        };
        ThinkTimes { mean, random: stream(seed, THINK_STREAM) }
    }

    pub(crate) fn next(&mut self) -> Nanos {
        let share: f64 = Exp1.sample(&mut self.random);
        Nanos((self.mean.0 as f64 * share) as u64)
    }
}

/// Lengths, one after the other.
pub(crate) fn lengths(length: Length, mut random: Pcg64Mcg) -> impl Iterator<Item = u32> {
    let logarithm = match length {
        Length::Lognormal { mean, p99 } => lognormal(mean, p99),
        _ => None,
    };
    std::iter::repeat_with(move || match (length, logarithm) {
        (Length::Fixed(tokens), _) => tokens,
        (Length::Uniform { from, to }, _) => random.random_range(from..=to.max(from)),
        (Length::Lognormal { .. }, Some(distribution)) => {
            let tokens: f64 = distribution.sample(&mut random);
            tokens.round().clamp(1.0, f64::from(MOST_TOKENS)) as u32
        }
        (Length::Lognormal { mean, .. }, None) => mean as u32,
    })
}

/// Standard deviations from the middle to the 99th percentile.
const Z99: f64 = 2.326_347_874_040_841;

/// The lognormal distribution with a mean and a 99th percentile. Of the two that there are, the narrower one.
fn lognormal(mean: f64, p99: f64) -> Option<LogNormal<f64>> {
    // ln mean = m + s^2 / 2 and ln p99 = m + z s.
    let sigma = Z99 - (Z99 * Z99 - 2.0 * libm::log(p99 / mean)).max(0.0).sqrt();
    LogNormal::new(libm::log(mean) - sigma * sigma / 2.0, sigma).ok()
}

/// The arrivals of a process, one after the other; none where its parameters are not those of one.
pub(crate) fn arrivals(process: Process, seed: u64) -> impl Iterator<Item = Time> {
    let mut random = stream(seed, ARRIVAL_STREAM);
    let mut gaps = Gaps::new(process);
    let mut at = 0.0;
    std::iter::from_fn(move || {
        at = gaps.as_mut()?.next(at, &mut random);
        Some(Time((at * 1e9) as u64))
    })
}

/// What draws the next arrival, in seconds.
enum Gaps {
    Exponential(Exp<f64>),
    Gamma(Gamma<f64>),
    Weibull(Weibull<f64>),
    Ramp(Ramp),
}

impl Gaps {
    fn new(process: Process) -> Option<Gaps> {
        Some(match process {
            Process::Poisson { rate } => Gaps::Exponential(Exp::new(rate.per_second()).ok()?),
            Process::Gamma { rate, cv } => {
                let shape = 1.0 / (cv * cv);
                Gaps::Gamma(Gamma::new(shape, 1.0 / (rate.per_second() * shape)).ok()?)
            }
            Process::Weibull { rate, shape } => {
                let scale = 1.0 / (rate.per_second() * libm::tgamma(1.0 + 1.0 / shape));
                Gaps::Weibull(Weibull::new(scale, shape).ok()?)
            }
            Process::Ramp { from, to, over } => {
                let (from, to, over) = (from.per_second(), to.per_second(), over.as_secs_f64());
                Gaps::Ramp(Ramp { from, to, over, expected: 0.0 })
            }
        })
    }

    /// The arrival after the one at `at`.
    fn next(&mut self, at: f64, random: &mut Pcg64Mcg) -> f64 {
        at + match self {
            Gaps::Exponential(gaps) => gaps.sample(random),
            Gaps::Gamma(gaps) => gaps.sample(random),
            Gaps::Weibull(gaps) => gaps.sample(random),
            Gaps::Ramp(ramp) => {
                ramp.expected += Distribution::<f64>::sample(&Exp1, random);
                return ramp.when();
            }
        }
    }
}

/// A Poisson process whose rate changes evenly: at unit rate in the number of arrivals expected.
struct Ramp {
    from: f64,
    to: f64,
    over: f64,
    /// Arrivals expected up to the last one.
    expected: f64,
}

impl Ramp {
    /// When so many arrivals are expected.
    fn when(&self) -> f64 {
        let Ramp { from, to, over, expected } = *self;
        let ramped = (from + to) / 2.0 * over;
        if expected >= ramped {
            return over + (expected - ramped) / to;
        }
        // The root of `from t + slope t^2 / 2 = expected`, in the form that holds for any slope.
        let slope = (to - from) / over;
        2.0 * expected / (from + (from * from + 2.0 * slope * expected).max(0.0).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenarios::ArrivalRate;

    const DRAWS: usize = 200_000;
    const RATE: ArrivalRate = ArrivalRate(5_000_000_000);

    fn gaps(process: Process) -> Vec<f64> {
        let mut last = 0;
        let gap = |at: Time| (at.0 - std::mem::replace(&mut last, at.0)) as f64 * 1e-9;
        arrivals(process, 7).take(DRAWS).map(gap).collect()
    }

    fn mean_and_cv(sample: &[f64]) -> (f64, f64) {
        let mean = sample.iter().sum::<f64>() / sample.len() as f64;
        let variance = sample.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / sample.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    fn close(found: f64, expected: f64, share: f64) {
        assert!((found / expected - 1.0).abs() < share, "{found}, expected {expected}");
    }

    #[test]
    fn gaps_have_the_mean_and_the_variation_that_were_asked_for() {
        for cv in [0.5, 1.0, 3.0] {
            let (mean, found) = mean_and_cv(&gaps(Process::Gamma { rate: RATE, cv }));
            close(mean, 0.2, 0.02 * cv);
            close(found, cv, 0.03);
        }
        // A Weibull distribution of shape 1/2 has a coefficient of variation of sqrt(5), one of shape 2 of sqrt(4/pi - 1).
        for (shape, cv) in
            [(0.5, 5.0_f64.sqrt()), (1.0, 1.0), (2.0, (4.0 / std::f64::consts::PI - 1.0).sqrt())]
        {
            let (mean, found) = mean_and_cv(&gaps(Process::Weibull { rate: RATE, shape }));
            close(mean, 0.2, 0.03);
            close(found, cv, 0.03);
        }
        let (mean, cv) = mean_and_cv(&gaps(Process::Poisson { rate: RATE }));
        close(mean, 0.2, 0.02);
        close(cv, 1.0, 0.02);
    }

    #[test]
    fn a_ramp_has_its_rate_at_every_time() {
        for (from, to) in [(0, 40), (40, 10), (20, 20)] {
            let rate = |per_second: u64| ArrivalRate(per_second * 1_000_000_000);
            let process = Process::Ramp { from: rate(from), to: rate(to), over: Nanos(1_000_000_000_000) };
            let mut counts = [0_u32; 12];
            for at in arrivals(process, 7).take_while(|at| at.0 < 1_200_000_000_000) {
                counts[(at.0 / 100_000_000_000) as usize] += 1;
            }
            for (index, count) in counts.into_iter().enumerate() {
                let middle = (index as f64 + 0.5) / 10.0;
                let expected = 100.0 * (from as f64 + (to as f64 - from as f64) * middle.min(1.0));
                // Five standard deviations of a Poisson count.
                assert!(
                    (f64::from(count) - expected).abs() < 5.0 * expected.sqrt(),
                    "{index}: {count}, {expected}"
                );
            }
        }
    }

    #[test]
    fn lengths_are_distributed_as_they_should_be() {
        let draw = |length| prompts(length, 7).take(DRAWS).collect::<Vec<u32>>();
        assert!(draw(Length::Fixed(9)).iter().all(|&tokens| tokens == 9));
        let uniform = draw(Length::Uniform { from: 10, to: 13 });
        for tokens in 10..=13 {
            let count = uniform.iter().filter(|&&drawn| drawn == tokens).count();
            close(count as f64, DRAWS as f64 / 4.0, 0.02);
        }
        for (mean, p99) in [(1000.0, 4000.0), (28.0, 252.0), (100.0, 101.0), (100.0, 1496.0)] {
            let mut drawn = draw(Length::Lognormal { mean, p99 });
            drawn.sort_unstable();
            let found = drawn.iter().map(|&tokens| f64::from(tokens)).sum::<f64>() / DRAWS as f64;
            close(found, mean, 0.03);
            close(f64::from(drawn[DRAWS * 99 / 100]), p99, 0.04);
        }
    }

    #[test]
    fn one_seed_draws_the_same_and_another_something_else() {
        let process = Process::Gamma { rate: RATE, cv: 2.0 };
        let times = |seed| arrivals(process, seed).take(50).collect::<Vec<_>>();
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
        let length = Length::Uniform { from: 1, to: 1_000_000 };
        assert_ne!(
            prompts(length, 1).take(5).collect::<Vec<_>>(),
            outputs(length, 1).take(5).collect::<Vec<_>>()
        );
    }
}
