//! What it is worth to hold a copy until its next use, and beyond.

use std::hint::select_unpredictable;

/// Keeps an expert never seen from waiting for ever: a thousandth of a visit a token.
pub(super) const RARE: f64 = 1e-3;

/// When a block will be needed: with probability `p` at the next visit of its layer, `wait` tokens from now, and if not
/// then, at `rate` visits a token.
#[derive(Clone, Copy)]
pub(super) struct NextUse {
    pub(super) p: f64,
    pub(super) wait: f64,
    pub(super) rate: f64,
}

/// What keeping a copy until its next use comes to, in nanoseconds: the stall saved and the rent of its memory; and the
/// price of memory (nanoseconds a byte and token) at which the two would be equal.
#[derive(Clone, Copy)]
pub(super) struct Holding {
    pub(super) saved: f64,
    pub(super) rent: f64,
    pub(super) break_even: f64,
}

impl NextUse {
    /// Expected tokens until the next use.
    pub(super) fn tokens(self) -> f64 {
        self.wait + (1.0 - self.p) / self.rate
    }

    /// The worth of a copy of `bytes` whose use saves `saves` nanoseconds, with memory at `price`. It is kept until the
    /// next visit, and beyond it, for about `horizon` tokens, only where popularity alone pays the rent: so where memory
    /// is cheap, blocks rank by expected time to next use, and where it is dear, by the probability of the very next
    /// visit.
    #[inline]
    pub(super) fn holding(self, saves: f64, price: f64, bytes: f64, horizon: f64) -> Holding {
        let rent = price * bytes;
        // Kept on, it is used at `rate` and given up at 1 / `horizon`, whichever is first.
        let kept_on = (1.0 - self.p) * horizon / (1.0 + self.rate * horizon);
        let later = kept_on * self.rate;
        let (saved, paid) = (self.p * saves, self.wait * rent);
        let pays = saves * self.rate > rent;
        let saved = select_unpredictable(pays, saved + later * saves, saved);
        let paid = select_unpredictable(pays, paid + kept_on * rent, paid);
        let soon = self.p / self.wait;
        let index = if soon >= self.rate { soon } else { (self.p + later) / (self.wait + kept_on) };
        Holding { saved, rent: paid, break_even: index * saves / bytes }
    }
}

impl Holding {
    /// What is saved beyond the rent.
    pub(super) fn worth(self) -> f64 {
        self.saved - self.rent
    }
}
