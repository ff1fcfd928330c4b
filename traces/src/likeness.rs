//! How close a generated trace comes to a recorded one, as a cache sees them.

use crate::error::{Problem, TraceError};
use crate::routing::RoutingTrace;
use policy::Demands;
use policy::registry::{Entry, registry};
use policy::replay::{Order, ReplayInput, Reset};
use serde::Serialize;
use std::collections::BTreeMap;

/// Eighths of the model's blocks, as numbers of slots to compare at.
const EIGHTHS: [usize; 5] = [1, 2, 3, 4, 6];

/// One point of two hit-rate curves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Likeness {
    /// The policy.
    pub policy: &'static str,
    /// Slots of the cache.
    pub capacity_slots: usize,
    /// Hit rate on the recorded trace.
    pub recorded: f64,
    /// Hit rate on the generated trace.
    pub generated: f64,
}

impl Likeness {
    /// How far the generated trace is above the recorded one, in points of the hit rate.
    pub fn points(&self) -> f64 {
        100.0 * (self.generated - self.recorded)
    }
}

/// Hit rates of both traces under every policy that can be replayed and learns nothing beforehand, from cold, layer step
/// by layer step. An error if one of the traces is of repetition only, or too long to be replayed.
pub fn likeness(
    recorded: &RoutingTrace,
    generated: &RoutingTrace,
    include_repetition: bool,
) -> Result<Vec<Likeness>, TraceError> {
    let demands = [recorded, generated].map(|trace| trace.demands(include_repetition));
    if demands.iter().any(Demands::is_empty) {
        return Err(Problem::OnlyRepetition.into());
    }
    let blocks = recorded.shape().blocks() as usize;
    let mut points = Vec::new();
    for entry in registry().iter().filter(|entry| entry.replay.is_some() && !entry.fitted) {
        for slots in EIGHTHS.map(|eighths| (blocks * eighths / 8).max(1)) {
            points.push(Likeness {
                policy: entry.name,
                capacity_slots: slots,
                recorded: hit_rate(entry, &demands[0], slots)?,
                generated: hit_rate(entry, &demands[1], slots)?,
            });
        }
    }
    Ok(points)
}

/// The hit rate of a policy with its default parameters, from cold.
pub(crate) fn hit_rate(entry: &Entry, demands: &Demands, capacity: usize) -> Result<f64, TraceError> {
    let params = entry.resolve(&BTreeMap::new()).unwrap_or_default();
    let (order, reset) = (Order::Atomic, Reset::Never);
    let input = ReplayInput { demands, fit: None, capacity, order, reset, params: &params };
    Ok(entry.run(&input).map_err(Problem::Replay)?.hit_rate())
}
