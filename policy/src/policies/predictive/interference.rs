//! What a move ahead of demand costs the demands that it gets in the way of.
//!
//! A demand never waits behind more than one chunk. It comes at any moment of one, so on average it waits for half, and it comes
//! at the end of every idle window over which the move is spread, if its layer misses anything.

use crate::control::Context;
use crate::score::Route;
use crate::units::Nanos;

/// Weight of the newest layer step in the share of those that miss something.
const SMOOTHING: f64 = 0.01;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interference {
    /// The share of layer steps that demand a move.
    missing: f64,
}

impl Interference {
    /// A layer step was routed, and demands a move or does not.
    pub(super) fn observe(&mut self, misses: bool) {
        self.missing += SMOOTHING * (f64::from(u8::from(misses)) - self.missing);
    }

    /// Nanoseconds that demands are expected to wait for a move over `route` to a layer so many layers ahead, which its links have a
    /// window for in every layer.
    pub(super) fn delay(self, (context, window): (&Context, Nanos), route: &Route, ahead: f64) -> f64 {
        let whole = route.time.0 as f64;
        let chunks = route.crossing.0 as f64 / context.pace.chunk.0.max(1) as f64;
        let windows = (whole / window.0.max(1) as f64).min(ahead);
        windows * self.missing * whole / chunks.max(1.0) / 2.0
    }
}
