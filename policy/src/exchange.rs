//! When accelerators next send each other what they have, over links that blocks move on: a background chunk that would still
//! be on such a link then would slow down what all of them wait for.

use crate::machine::Peers;
use crate::observe::Signals;
use crate::orchestrator::Orchestrator;
use crate::path::LinkSet;
use crate::units::{Bytes, Nanos, Time};

/// An exchange that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The links that it crosses.
    pub links: LinkSet,
    /// When it is expected to begin.
    pub begins: Time,
    /// How long a background move may be kept waiting for it, so that none waits for ever: so many layers.
    pub patience: Nanos,
}

/// Layers for which a background move is kept waiting at most.
const PATIENCE: u64 = 4;

impl Exchange {
    /// The next one, while a layer's blocks are being computed and the mixer after them; `None` where exchanges have links of
    /// their own, and while nobody knows how long that takes. `sum` is the time of a layer's sums.
    pub fn next(peers: Peers, signals: &Signals, sum: Nanos) -> Option<Exchange> {
        let since = signals.computing_since()?;
        // Tokens come back when the blocks are computed; sums end with the mixer.
        let window = match peers.groups > 1 {
            true => signals.compute_window,
            false => signals.idle_window.saturating_sub(sum),
        };
        let patience = Nanos(signals.layer_period.0.saturating_mul(PATIENCE));
        (window > Nanos::ZERO).then_some(Exchange { links: peers.over, begins: since + window, patience })
    }
}

impl Orchestrator {
    /// The exchange that moves must mind now: none while there is no step.
    pub(crate) fn exchange_due(&self) -> Option<Exchange> {
        let context = &self.context;
        let peers = context.machine.peers.filter(|peers| peers.shares_links() && self.is_stepping())?;
        let activations = context.model.layer(context.signals.layer).activations.0;
        let bytes = Bytes(activations.saturating_mul(context.signals.step_tokens.into()));
        let sum = if peers.ranks > 1 { peers.all_reduce(bytes) } else { Nanos::ZERO };
        // What the blocks gave, and what the mixer did.
        Exchange::next(peers, &context.signals, sum + sum)
    }
}
