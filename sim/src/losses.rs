//! What a summary says of accelerators that were lost during a run.

use crate::simulate::Outcome;
use policy::Nanos;
use policy::orchestrator::group::Loss;
use serde::Serialize;

/// An accelerator that was lost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LossFigures {
    /// Which one, from 0.
    pub accelerator: u32,
    /// When the others noticed, at the end of a step whose tokens were thrown away if one was running: seconds from the beginning.
    pub lost_s: f64,
    /// When it took part again, with nothing in its memory; left out where it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_s: Option<f64>,
    /// Requests that it attended to, which were computed again.
    pub requests: u32,
    /// Tokens that were in their caches.
    pub cached_tokens: u64,
}

/// Those of a run, in order.
pub(crate) fn losses(outcome: &Outcome) -> Vec<LossFigures> {
    let figures = |&Loss { rank, at, back, abandoned }: &Loss| LossFigures {
        accelerator: rank,
        lost_s: Nanos(at.0).as_secs_f64(),
        back_s: back.map(|back| Nanos(back.0).as_secs_f64()),
        requests: abandoned.requests,
        cached_tokens: abandoned.tokens,
    };
    outcome.orchestrator.tally().losses.iter().map(figures).collect()
}
