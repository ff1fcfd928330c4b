//! The least stall that any policy could have on a case: a lower bound that is proved, whatever is prefetched, in whatever
//! order, with blocks of any sizes and several formats.
//!
//! `sequence` writes the demands of the run down, `terms` says what machine, model and guard make of them, and the result is
//! a linear program (`program`). Any prices for its constraints prove a bound (`dual`); `search` finds good ones.

mod chain;
mod dual;
mod program;
mod search;
mod sequence;
mod terms;
#[cfg(test)]
mod tests;
mod ways;
mod whole;

use crate::simulate::{Case, RunFailure};
use serde::Serialize;

/// No policy stalls less than this, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StallBound {
    /// With the memory of the case.
    pub stall_s: f64,
    /// With memory for every block: the stall of the first loads, as the run begins with empty fast memory.
    pub cold_s: f64,
}

/// The bound of a case. `None` where there is none: where requests come in at times of their own, what a batch is made of
/// depends on how fast the policy is; where the host may compute blocks too; and where accelerators with other experts or layers are waited for.
///
/// It holds for every policy whose demands run in one wave where they fit beside one other move, as the controller sees to.
///
/// # Errors
/// See [`RunFailure`].
pub fn stall_bound(case: &Case) -> Result<Option<StallBound>, RunFailure> {
    let program = sequence::program(case)?;
    Ok(program.map(|program| {
        let cold = program.cold_stall();
        StallBound { stall_s: search::stall(&program).max(cold) * 1e-9, cold_s: cold * 1e-9 }
    }))
}
