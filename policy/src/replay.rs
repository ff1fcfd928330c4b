//! A sequence of demands through one rule and one number of slots: how often was the block already there?

use crate::demand::Demands;
use crate::rule::{Keep, Rule};
use serde::{Deserialize, Serialize};
use std::ops::Range;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// What one demand is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The distinct ids of one layer step are one demand: a hit was there before the step, and nothing of the step is
    /// evicted while it runs. Hits are told first, then misses come in in stored order. Where the step is larger than the cache, what finds no
    /// slot passes through uncached. Time is the layer step.
    #[default]
    Atomic,
    /// Every selection is a demand of its own. Time is the access.
    Access,
}

/// When the cache starts cold and the rule forgets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// At the start only.
    #[default]
    Never,
    /// At the start of every trace.
    Trace,
}

/// What a replay is run on.
#[derive(Clone, Copy, Debug)]
pub struct ReplayInput<'a> {
    /// What is demanded.
    pub demands: &'a Demands,
    /// What a fitted rule may learn from beforehand.
    pub fit: Option<&'a Demands>,
    /// The number of slots.
    pub capacity: usize,
    /// What one demand is.
    pub order: Order,
    /// When the cache starts cold.
    pub reset: Reset,
    /// The values of the rule's parameters, in the order of its registry entry.
    pub params: &'a [f64],
}

/// What a replay found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayResult {
    /// Demanded blocks: in access order every selection, in atomic order the distinct ids of each step.
    pub accesses: u64,
    /// Those that were resident.
    pub hits: u64,
}

impl ReplayResult {
    /// Demanded blocks that were not resident.
    pub fn misses(&self) -> u64 {
        self.accesses - self.hits
    }

    /// The share of demanded blocks that were resident; zero where nothing was demanded.
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.accesses.max(1) as f64
    }
}

/// Why a replay was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReplayError {
    /// The registry entry serves simulation only.
    #[error("{policy} cannot be replayed: it needs time and memory to decide; use it in `simulate`")]
    NotReplayable {
        /// The entry.
        policy: &'static str,
    },
    /// A fitted rule without anything to fit it on.
    #[error(
        "this policy is fitted beforehand and nothing was given to fit it on; name a trace, with --fit or in `workload.fit`"
    )]
    NoFit,
    /// The fitted trace is from another model.
    #[error(
        "the fitted trace has {fit} blocks and the replayed one {demands}; fit on a trace of the same model"
    )]
    FitUniverse {
        /// Ids there can be in the fitted trace.
        fit: u32,
        /// Ids there can be in the replayed one.
        demands: u32,
    },
    /// More demands than the clairvoyant rule can number.
    #[error(
        "{demands} demands are too many for the clairvoyant bound, which numbers them in 32 bits; replay a part"
    )]
    TooLong {
        /// Selections in the trace.
        demands: usize,
    },
    /// The wrong number of parameters.
    #[error("{policy} takes {expected} parameters, not {given}")]
    ParamCount {
        /// The entry.
        policy: &'static str,
        /// How many it has.
        expected: usize,
        /// How many there were.
        given: usize,
    },
    /// A parameter outside its range, or not a number.
    #[error("{policy}: {param} is {value}, which is not between {min} and {max}")]
    ParamRange {
        /// The entry.
        policy: &'static str,
        /// The parameter.
        param: &'static str,
        /// What was given.
        value: f64,
        /// The least allowed value.
        min: f64,
        /// The greatest allowed value.
        max: f64,
    },
}

impl ReplayInput<'_> {
    /// The parameters of a rule that has `N` of them.
    pub(crate) fn params_of<const N: usize>(&self, policy: &'static str) -> Result<[f64; N], ReplayError> {
        let given = self.params.len();
        self.params.try_into().map_err(|_| ReplayError::ParamCount { policy, expected: N, given })
    }

    /// Runs `rule`, built for the universe of the demands, through them.
    pub fn run<R: Rule>(&self, mut rule: R) -> ReplayResult {
        let mut result = ReplayResult::default();
        let mut step_ids = StepIds::new(self.demands.universe());
        for steps in segments(self.demands, self.reset) {
            rule.reset();
            let resident = (0..self.demands.universe()).filter(|&id| rule.contains(id)).count();
            let free = self.capacity.saturating_sub(resident);
            let part = match self.order {
                // A step of one id keeps nothing else from leaving.
                _ if self.demands.all_single() => run_accesses(&mut rule, self.demands, steps, free),
                Order::Access => run_accesses(&mut rule, self.demands, steps, free),
                Order::Atomic => run_steps(&mut rule, self.demands, steps, free, &mut step_ids),
            };
            result.accesses += part.accesses;
            result.hits += part.hits;
        }
        result
    }
}

fn run_accesses<R: Rule>(
    rule: &mut R,
    demands: &Demands,
    steps: Range<usize>,
    mut free: usize,
) -> ReplayResult {
    let mut result = ReplayResult::default();
    let from = demands.offset(steps.start) as u64;
    demands.in_slices(steps, |ids| {
        result.hits += rule.access_each(ids, from + result.accesses, &mut free);
        result.accesses += ids.len() as u64;
    });
    result
}

fn run_steps<R: Rule>(
    rule: &mut R,
    demands: &Demands,
    steps: Range<usize>,
    mut free: usize,
    step_ids: &mut StepIds,
) -> ReplayResult {
    let mut result = ReplayResult::default();
    for step in steps {
        step_ids.set(step, &demands.step(step));
        let now = step as u64;
        // Hits first: what was there before the step stays through it, wherever it stands in the step.
        for &id in &step_ids.distinct {
            if rule.contains(id) {
                rule.touch(id, now);
                result.hits += 1;
            }
        }
        for &id in &step_ids.distinct {
            if !rule.contains(id) {
                rule.access(id, now, step_ids, &mut free);
            }
        }
        result.accesses += step_ids.distinct.len() as u64;
    }
    result
}

/// The distinct ids of the running step, in stored order. None of them may be evicted.
struct StepIds {
    distinct: Vec<u32>,
    /// The last step each id was in.
    last: Vec<usize>,
    step: usize,
}

impl StepIds {
    fn new(universe: u32) -> StepIds {
        StepIds { distinct: Vec::new(), last: vec![usize::MAX; universe as usize], step: usize::MAX }
    }

    fn set(&mut self, step: usize, ids: &[u32]) {
        self.step = step;
        self.distinct.clear();
        for &id in ids {
            if std::mem::replace(&mut self.last[id as usize], step) != step {
                self.distinct.push(id);
            }
        }
    }
}

impl Keep for StepIds {
    #[inline(always)]
    fn keeps(&self, id: u32) -> bool {
        self.last[id as usize] == self.step
    }
}

/// The steps between two cold starts.
fn segments(demands: &Demands, reset: Reset) -> impl Iterator<Item = Range<usize>> {
    let starts = match reset {
        Reset::Never => &[],
        Reset::Trace => demands.trace_starts(),
    };
    let from = std::iter::once(0).chain(starts.iter().copied());
    let to = starts.iter().copied().chain(std::iter::once(demands.len()));
    from.zip(to).map(|(from, to)| from..to).filter(|steps| !steps.is_empty())
}

/// First demands after a cold start: misses of any rule that starts with an empty cache, whatever its capacity.
pub fn cold_misses(demands: &Demands, reset: Reset) -> u64 {
    let mut seen_in = vec![usize::MAX; demands.universe() as usize];
    let mut total = 0;
    for (segment, steps) in segments(demands, reset).enumerate() {
        let mut unseen = seen_in.len();
        demands.in_slices(steps, |ids| {
            for &id in ids {
                if unseen == 0 {
                    break;
                }
                let first = std::mem::replace(&mut seen_in[id as usize], segment) != segment;
                total += u64::from(first);
                unseen -= usize::from(first);
            }
        });
    }
    total
}
