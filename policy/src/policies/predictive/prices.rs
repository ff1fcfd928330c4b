//! The prices of memory and of drift, which move in closed loop with pressure.
//!
//! # Why they settle
//!
//! **Drift.** With `x` the logarithm of the price and `u(x)` the squared drift of a step over the squared target, a step moves
//! `x` by `g * clamp(u(x) - 1, -1, 1)`: integral control of a logarithm, with gain `g` (`drift_gain`). Dearer drift is used
//! less, so `u` falls with `x`, and there is one price `x*` at which `u = 1`. Near it, with the slope `s = -du/dx > 0`, the
//! distance from `x*` is multiplied by `1 - g s` a step: it shrinks while `g s < 2`, and does not change its sign while `g s < 1`.
//! As `u = 1` there, `s` is the elasticity of what is used to its price: a gain of 0.05 leaves room for elasticities up to 40, and
//! up to 20 without overshoot. Use follows the price late, because copies stay in the format they came in: with a delay of `d`
//! steps the loop is stable while `g s d < pi / 2`. Far from `x*` the clamp bounds a step to a factor of `exp(g)`.
//!
//! The target `t` follows the share `f(x)` of steps that run into the budget: it moves by `h (f* - f)` a step, with `h` =
//! [`TARGET_GAIN`]. Where `f` falls with the price by `r`, the two together obey `x'' + g s x' + 2 g h r x / t = 0`: damped
//! for any gains, by `s sqrt(g t / (8 h r))`, about 1.4 `s / sqrt(r)` here. Where what is used hardly depends on the price (`s` small),
//! the price may swing for some hundred steps; then it also hardly matters. As the guard stops at the budget, `u` is at most `1 / t^2`,
//! so a price that is far too low would rise slowly, did not the target fall meanwhile.
//!
//! Where the budget does not bind at any price, or nothing fits it at any, the price stops at [`SPAN`] times less or more than the
//! first: it is never more than `ln SPAN / g` clamped steps from where it began, however long that lasted.
//!
//! **Memory.** Of the copies there are, `b_i` is the price at which copy `i` would just pay for its room. At a price of `m` a copy
//! is worth more than nothing while `m < b_i`, and the victim is the one that is worth least. Let `m*` be the least `b_i`. Below
//! it every copy is worth something, so the victim has `b >= m* > m`, and the price rises. Above it some copy is worth less than
//! nothing, and so is the victim: `m* <= b < m`, and the price falls, never below `m*`, as it moves by a share `a < 1` of
//! `b - m`. So whatever the copies are worth there is one price at rest; it may be overshot from below, once, and is then reached
//! from above without turning: Dinkelbach's method for the least ratio, damped. The weight of 0.05 averages over the last
//! twenty victims or so, for copies come and go and `m*` with them. Blocks are ranked anew only when the price has moved by a tenth:
//! within that band the victim may be that of the older price.

/// The share of the drift budget that the price steers for at first.
const DRIFT_TARGET: f64 = 0.9;
/// A step that used this share of the budget has run into it.
const FULL: f64 = 0.97;
/// The share of steps that may, and how fast the share steered for follows from it (mixtral-8x7b, budgets 0.5 to 9 %: with 0.05
/// and 0.3 of the steps the stall is up to 10 % higher at one budget or another).
const FULL_STEPS: f64 = 0.2;
const TARGET_GAIN: f64 = 0.003;
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
    /// The share of the drift budget that the price steers for; the guard stops at the whole of it.
    drift_target: f64,
}

impl PriceLoop {
    /// Nothing is scarce yet.
    pub(super) fn new() -> PriceLoop {
        PriceLoop { memory: 0.0, drift: None, drift_target: DRIFT_TARGET }
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
    /// price makes a step at the target worth that much a layer.
    pub(super) fn step_done(&mut self, drift: f64, budget: f64, gain: f64, fetch: f64) {
        let first = fetch / (budget * budget);
        let price = self.drift.unwrap_or(first);
        // As near to the budget as lumps allow: where one read takes much of it, steps run into it at lower means.
        let full = if drift >= FULL * budget { 1.0 } else { 0.0 };
        let target = (self.drift_target + TARGET_GAIN * (FULL_STEPS - full)).clamp(0.5, FULL);
        self.drift_target = target;
        let used = drift * drift / (budget * budget * target * target);
        let factor = libm::exp(gain * (used - 1.0).clamp(-1.0, 1.0));
        self.drift = Some((price * factor).clamp(first / SPAN, first * SPAN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAIN: f64 = 0.05;

    /// Runs a load that uses the target's share of a budget of 1 at a drift price of `at`, with so much elasticity, and no more
    /// than the guard allows. Returns the price after each step.
    fn steps(prices: &mut PriceLoop, at: f64, elasticity: f64, steps: usize) -> Vec<f64> {
        let step = |_| {
            let price = prices.drift.unwrap_or(1.0);
            let drift = DRIFT_TARGET * libm::pow(price / at, -elasticity / 2.0);
            prices.step_done(drift.min(1.0), 1.0, GAIN, 1.0);
            prices.drift()
        };
        (0..steps).map(step).collect()
    }

    /// The largest distance from the last, as a share of it.
    fn swing(of: &[f64]) -> f64 {
        let last = of[of.len() - 1];
        of.iter().map(|price| (price / last - 1.0).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn the_price_of_drift_settles_after_a_step_in_what_is_worth_its_while() {
        for elasticity in [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0] {
            let mut prices = PriceLoop::new();
            steps(&mut prices, 1.0, elasticity, 1000);
            for at in [4.0, 1.0] {
                let after = steps(&mut prices, at, elasticity, 2000);
                assert!(swing(&after[450..]) < 0.05, "{elasticity}: {} after 450", swing(&after[450..]));
                assert!(swing(&after[1500..]) < 0.005, "{elasticity}: {} in the end", swing(&after[1500..]));
                assert!(swing(&after) > 0.5, "the step was none");
            }
        }
    }

    #[test]
    fn a_budget_that_has_not_bound_for_long_is_felt_soon_when_it_does() {
        let mut prices = PriceLoop::new();
        (0..100_000).for_each(|_| prices.step_done(0.0, 1.0, GAIN, 1.0));
        assert_eq!(prices.drift(), 1.0 / SPAN);
        let after = steps(&mut prices, 1.0, 1.0, 2000);
        assert!(after.iter().position(|&price| price >= 1.0).is_some_and(|steps| steps < 400));
        assert!(swing(&after[1500..]) < 0.05, "{}", swing(&after[1500..]));
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
