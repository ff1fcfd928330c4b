//! The prices of memory and of drift, which move in closed loop with pressure.
//!
//! # Why they settle
//!
//! **Drift.** The guard stops a step at the budget. What is left over at the end of a step is lost, and a step that runs into
//! the budget early has copies that it may not read, so the price steers for the share `s` of steps that run into it
//! ([`FULL_STEPS`]). With `x` the logarithm of the price, a step moves `x` by `g (1 - s)` if it ran into the budget and by
//! `-g s` if not, `g` being `drift_gain`: on average by `g (f(x) - s)`, where `f` is the share of steps that do at that
//! price. Dearer drift is used less, so `f` falls with `x`, and there is one price `x*` at which `f = s`: stochastic approximation
//! with a constant gain. Near it, with the slope `r = -df/dx`, the distance from `x*` shrinks by `1 - g r` a step, and the price
//! keeps a jitter of a variance of `g s (1 - s) / (2 r)`. Use follows the price late, because copies stay in the format they came
//! in: with a delay of `d` steps a slope of any steepness makes a swing of `g d` at most, which cannot grow, as no step moves
//! the price by more than `g`. Far from `x*` all steps push one way: a price that is too dear by a factor of `c` is back after
//! `ln c / (g s)` steps, one too cheap after `ln c / (g (1 - s))`.
//!
//! Where the budget does not bind at any price, or nothing fits it at any, the price stops at [`SPAN`] times less or more than the
//! first: it is never more than `ln SPAN` over those rates from where it began, however long that lasted.
//!
//! **Memory.** Of the copies there are, `b_i` is the price at which copy `i` would just pay for its room. At a price of `m` a copy
//! is worth more than nothing while `m < b_i`, and the victim is the one that is worth least. Let `m*` be the least `b_i`. Below
//! it every copy is worth something, so the victim has `b >= m* > m`, and the price rises. Above it some copy is worth less than
//! nothing, and so is the victim: `m* <= b < m`, and the price falls, never below `m*`, as it moves by a share `a < 1` of
//! `b - m`. So whatever the copies are worth there is one price at rest; it may be overshot from below, once, and is then reached
//! from above without turning: Dinkelbach's method for the least ratio, damped. The weight of 0.05 averages over the last
//! twenty victims or so, for copies come and go and `m*` with them. Blocks are ranked anew only when the price has moved by a tenth:
//! within that band the victim may be that of the older price.

/// A step that used this share of the budget has run into it.
const FULL: f64 = 0.97;
/// The share of steps that may (mixtral-8x7b and qwen3-30b-a3b, budgets 0.5 to 9 %: with 0.2 of them the stall is up to 8 % higher,
/// as drift is left over; with 0.7 up to 40 %, as copies are there that may not be read).
const FULL_STEPS: f64 = 0.5;
/// How far the price of drift may get from the first (mixtral-8x7b and qwen3-30b-a3b, budgets 0.5 to 9 %: with 100 the stall is up to
/// 1 % higher; with more it is no lower, and the way back longer).
const SPAN: f64 = 1e3;
/// Weight of the newest victim in the price of memory.
const MEMORY_SMOOTHING: f64 = 0.05;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct PriceLoop {
    memory: f64,
    drift: Option<f64>,
}

impl PriceLoop {
    /// Nothing is scarce yet.
    pub(super) fn new() -> PriceLoop {
        PriceLoop { memory: 0.0, drift: None }
    }

    /// Nanoseconds of stall that a byte kept for a token saves, at the margin.
    #[inline]
    pub(super) fn memory(self) -> f64 {
        self.memory
    }

    /// Nanoseconds of stall worth one unit of squared layer drift.
    #[inline]
    pub(super) fn drift(self) -> f64 {
        self.drift.unwrap_or(0.0)
    }

    /// A copy was given up that would have been kept with memory at `break_even`.
    pub(super) fn gave_up(&mut self, break_even: f64) {
        self.memory += MEMORY_SMOOTHING * (break_even - self.memory);
    }

    /// A step drifted by so much of a budget above 0. `fetch` is what the fetch of a block costs, in nanoseconds: the first
    /// price makes a step at the budget worth that much a layer.
    pub(super) fn step_done(&mut self, drift: f64, budget: f64, gain: f64, fetch: f64) {
        // Finite, however small the budget.
        let first = (fetch.max(1.0) / (budget * budget)).min(f64::MAX / SPAN);
        let price = self.drift.unwrap_or(first);
        let full = if drift >= FULL * budget { 1.0 } else { 0.0 };
        let factor = libm::exp(gain * (full - FULL_STEPS));
        self.drift = Some((price * factor).clamp(first / SPAN, first * SPAN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAIN: f64 = 0.05;

    /// Runs a load that just fills a budget of 1 at a drift price of `at`, where use follows the price `delay` steps late.
    /// Returns how far the logarithm of the price is from that of `at` after each step.
    fn steps(prices: &mut PriceLoop, at: f64, delay: usize, steps: usize) -> Vec<f64> {
        let mut seen = vec![prices.drift.unwrap_or(1.0); delay + 1];
        let step = |_| {
            let drift = FULL * at / seen[0];
            prices.step_done(drift.min(1.0), 1.0, GAIN, 1.0);
            seen.remove(0);
            seen.push(prices.drift());
            libm::log(prices.drift() / at)
        };
        (0..steps).map(step).collect()
    }

    fn largest(of: &[f64]) -> f64 {
        of.iter().map(|off| off.abs()).fold(0.0, f64::max)
    }

    #[test]
    fn the_price_of_drift_settles_after_a_step_in_what_is_worth_its_while() {
        for delay in [0, 1, 4, 16] {
            let mut prices = PriceLoop::new();
            for at in [1.0, 4.0, 1.0] {
                let off = steps(&mut prices, at, delay, 1000);
                let swing = GAIN * (1 + delay) as f64;
                let there = libm::log(4.0) / (GAIN * FULL_STEPS) + delay as f64;
                let settled = &off[there as usize + 1..];
                assert!(largest(settled) <= swing, "{delay}: {} off", largest(settled));
            }
        }
    }

    #[test]
    fn a_budget_too_small_to_be_squared_has_a_price_all_the_same() {
        for fetch in [0.0, 1e6] {
            let mut prices = PriceLoop::new();
            (0..100).for_each(|_| prices.step_done(1.0, 1e-200, GAIN, fetch));
            assert!(prices.drift().is_finite());
        }
    }

    #[test]
    fn a_budget_that_has_not_bound_for_long_is_felt_soon_when_it_does() {
        let mut prices = PriceLoop::new();
        (0..100_000).for_each(|_| prices.step_done(0.0, 1.0, GAIN, 1.0));
        assert_eq!(prices.drift(), 1.0 / SPAN);
        let off = steps(&mut prices, 1.0, 0, 1000);
        let back = off.iter().position(|&off| off >= 0.0).unwrap() as f64;
        assert!(back <= libm::log(SPAN) / (GAIN * (1.0 - FULL_STEPS)) + 1.0, "{back} steps");
        assert!(largest(&off[back as usize..]) <= GAIN);
    }

    /// Copies with room and, in nanoseconds a byte and token, the price at which each just pays for it.
    fn copies(scale: f64) -> Vec<(f64, f64)> {
        (1..=60u32).map(|n| (f64::from(1 + n * 7 % 5), scale * (1.0 + f64::from(n * 37 % 61)))).collect()
    }

    #[test]
    fn the_price_of_memory_settles_at_what_the_least_copy_would_pay_and_turns_once_at_most() {
        let mut prices = PriceLoop::new();
        for scale in [1.0, 4.0, 0.5] {
            let copies = copies(scale);
            let least = copies.iter().map(|copy| copy.1).fold(f64::INFINITY, f64::min);
            let mut off = Vec::new();
            for _ in 0..400 {
                let worth = |&(room, pays): &(f64, f64)| room * (pays - prices.memory());
                let victim = copies.iter().min_by(|a, b| worth(a).total_cmp(&worth(b))).unwrap();
                prices.gave_up(victim.1);
                off.push(prices.memory() - least);
            }
            let turns = off.windows(2).filter(|pair| pair[0] * pair[1] < 0.0).count();
            assert!(turns <= 1, "{turns} turns at {scale}");
            assert!(off[399].abs() < 0.01 * least, "{} off {least}", off[399]);
        }
    }
}
