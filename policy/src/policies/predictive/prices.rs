//! The prices of memory and of drift, which move in closed loop with pressure.
//!
//! # Why they settle
//!
//! **Drift.** With `x` the logarithm of the price and `u(x)` the squared drift of a step over the squared target, a step
//! moves `x` by `g * clamp(u(x) - 1, -1, 1)`: integral control of a logarithm, with gain `g` (`drift_gain`). Dearer drift
//! is used less, so `u` falls with `x`, and there is one price `x*` at which `u = 1`. Near it, with the slope
//! `s = -du/dx > 0`, the distance from `x*` is multiplied by `1 - g s` a step: it shrinks while `g s < 2`, and does not
//! change its sign while `g s < 1`. As `u = 1` there, `s` is the elasticity of what is used to its price. The gain of 0.05
//! leaves room for elasticities up to 40, and 20 without overshoot. Use follows the price late, because copies stay in the
//! format they came in: against a delay of `d` steps the loop is stable while `g s d < pi / 2`. Far from `x*` the clamp bounds
//! a step to a factor of `exp(g)`: a settled price that changes by a factor of `f` is reached after `ln f / g` steps or a
//! little more. The target moves by at most [`TARGET_GAIN`] a step, some twenty times slower than the price at that gain: the price
//! settles anew for every target, and the target's own loop is the same integral control of the share of full steps.
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
/// Weight of the newest victim in the price of memory.
const MEMORY_SMOOTHING: f64 = 0.05;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prices {
    memory: f64,
    drift: Option<f64>,
    /// The share of the drift budget that the price steers for; the guard stops at the whole of it.
    drift_target: f64,
}

impl Prices {
    /// Nothing is scarce yet.
    pub(super) fn new() -> Prices {
        Prices { memory: 0.0, drift: None, drift_target: DRIFT_TARGET }
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
        let price = self.drift.unwrap_or(fetch / (budget * budget));
        // As near to the budget as lumps allow: where one read takes much of it, steps run into it at lower means.
        let full = if drift >= FULL * budget { 1.0 } else { 0.0 };
        let target = (self.drift_target + TARGET_GAIN * (FULL_STEPS - full)).clamp(0.5, FULL);
        self.drift_target = target;
        let used = drift * drift / (budget * budget * target * target);
        let factor = libm::exp(gain * (used - 1.0).clamp(-1.0, 1.0));
        self.drift = Some(price * factor);
    }
}
