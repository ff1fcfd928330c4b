//! The summary of a run, with the keys the field writes.

use crate::checkpoint_figures::CheckpointFigures;
use crate::losses::{LossFigures, losses};
use crate::simulate::{Case, Outcome};
use crate::traffic::{LinkUse, NearUse, ReadAheadUse, TierUse, hidden, links, near, read_ahead, tiers};
use crate::world::World;
use indexmap::IndexMap;
use policy::parallel::ExpertShare;
use policy::state::STATES;
use policy::tally::{CAUSES, CacheUse, Latencies};
use policy::veto::REASONS;
use policy::{Bytes, Nanos, Orchestrator, Sketch};
use serde::Serialize;

/// What a run gave. Times are in milliseconds, sizes in bytes; percentiles are linear between ranks, and at most 0.05 %
/// off: [`Sketch::error`].
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// `mean_`, `p50_`, `p90_`, `p95_`, `p99_` of `ttft`, `tpot`, `itl`, `e2e` and `queue`, each `_ms`. TTFT ends when the
    /// first token's compute completes; TPOT is (E2E - TTFT) / (tokens - 1); ITL is every gap. Null without a sample.
    #[serde(flatten)]
    pub latencies: IndexMap<String, Option<f64>>,
    /// Tokens decoded a second.
    pub output_throughput_tok_s: f64,
    /// Requests finished a second.
    pub request_throughput_rps: f64,
    /// Requests finished within the service objective a second; all of them where there is none.
    pub goodput_rps: f64,
    /// Share of the run in which the accelerator computed.
    pub compute_utilization: f64,
    /// Requests in a step, on average over the time of steps.
    pub mean_batch: f64,
    /// Requests waiting to be admitted, likewise.
    pub mean_waiting: f64,
    /// Stall over step time.
    pub stall_fraction: f64,
    /// Stall by cause.
    pub stall_ms_by_cause: IndexMap<&'static str, f64>,
    /// Share of the time of links into the fast tier that no step waited for: what was carried ahead of demand, and behind
    /// computing. Null where nothing was carried.
    pub hidden_transfer_share: Option<f64>,
    /// Share of demanded (block, layer step) pairs that had a usable fast copy when the step asked.
    pub hit_rate: f64,
    /// The same, by the state the block was in.
    pub hit_rate_by_state: IndexMap<&'static str, f64>,
    /// Mean drift of a step.
    pub drift_mean: f64,
    /// Largest drift of a step, at the upper confidence bound.
    pub drift_max: f64,
    /// What the operator allows.
    pub drift_budget: f64,
    /// What each of several models on the machine has put out, where there are several; what else is said is of all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantFigures>,
    /// The accelerators that have experts of their own, where there are several; what else is said of one is the first one's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expert_ranks: Vec<RankUse>,
    /// How evenly tokens went to them, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expert_balance: Option<ExpertBalance>,
    /// Those that were lost, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<LossFigures>,
    /// The stages of a pipeline, in order, where there are several; what else is said of one is the first one's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pipeline_stages: Vec<StageUse>,
    /// Refusals by reason.
    pub vetoes: Vec<Veto>,
    /// Link directions.
    pub links: Vec<LinkUse>,
    /// Memories.
    pub tiers: Vec<TierUse>,
    /// Native bytes times seconds that blocks spent in each state.
    pub states: Vec<StateUse>,
    /// Edges taken.
    pub transitions: Vec<Transition>,
    /// Speculative moves begun.
    pub speculations: u64,
    /// Those that a step asked for while they were under way.
    pub speculations_used: u64,
    /// What came of reading ahead into staging tiers, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_ahead: Option<ReadAheadUse>,
    /// Demanded pairs that the host, or a processor of a memory, computed where they were.
    pub hosted: u64,
    /// What each of these did, on machines that have any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<NearUse>,
    /// Demanded pairs that were left out of their step.
    pub skipped: u64,
    /// Waves beyond the first of a layer step.
    pub extra_waves: u64,
    /// Requests finished.
    pub requests_completed: u64,
    /// Prompt tokens computed, each once.
    pub prompt_tokens: u64,
    /// Tokens computed again, of prompts and outputs, after their request had been pre-empted.
    pub recomputed_tokens: u64,
    /// What the key-value cache was used for, where it is kept in pages.
    #[serde(flatten)]
    pub cache: Option<CacheFigures>,
    /// What checkpoints of recurrent states were used for, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<CheckpointFigures>,
    /// Tokens put out.
    pub output_tokens: u64,
    /// Layer steps run.
    pub layer_steps: u64,
    /// The share of each basis in the time that operators take alone: `measured`, `fitted`, `roofline`, and as `missing` the
    /// least that operators would take for which the run takes no time. See [`crate::provenance`].
    pub operator_time_share: std::collections::BTreeMap<&'static str, f64>,
    /// `trace`, `synthetic`, or `none` for a model without a router.
    pub gates: &'static str,
    /// What requests follow: `own`, `stand_in` or `none`. See [`Case::routing_followed`].
    pub routing: &'static str,
    /// Policy.
    pub policy: String,
    /// Events of the simulation.
    pub events: u64,
    /// Time until weights were where the run begins with them, in seconds.
    pub load_s: f64,
    /// Time simulated, in seconds.
    pub simulated_s: f64,
    /// Time the accelerator computed, in seconds.
    pub compute_s: f64,
    /// The seed.
    pub seed: u64,
    /// The version that wrote this.
    pub hotset_version: &'static str,
    /// Events a second of real time; depends on the machine.
    pub events_per_s: f64,
    /// Real time of the run, in seconds; depends on the machine.
    pub wall_s: f64,
}

/// What a key-value cache in pages was used for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CacheFigures {
    /// The most bytes that it took.
    pub kv_peak_bytes: u64,
    /// Tokens of prompts that were there when their request was admitted.
    pub prefix_hit_tokens: u64,
    /// Requests that gave their cache up to others.
    pub preemptions: u64,
    /// Requests refused because the cache can never hold them.
    pub requests_rejected: u64,
}

impl From<CacheUse> for CacheFigures {
    fn from(used: CacheUse) -> CacheFigures {
        CacheFigures {
            kv_peak_bytes: used.peak.0,
            prefix_hit_tokens: used.prefix_tokens,
            preemptions: used.preemptions,
            requests_rejected: used.rejected,
        }
    }
}

/// Refusals for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct Veto {
    /// The reason.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// What one of several accelerators that have experts of their own did.
#[derive(Clone, Debug, Serialize)]
pub struct RankUse {
    /// Its share of its demanded (block, layer step) pairs that had a usable fast copy when the step asked.
    pub hit_rate: f64,
    /// Time it waited for memory, in seconds.
    pub stall_s: f64,
    /// Time it computed.
    pub compute_s: f64,
    /// Time it waited for the others, tokens on their way included.
    pub waited_s: f64,
}

/// What one stage of a pipeline did.
#[derive(Clone, Debug, Serialize)]
pub struct StageUse {
    /// Its layers, from 0: the first and the last.
    pub layers: [usize; 2],
    /// Bytes of their weights in full precision, with the embedding and the head where it has them.
    pub weight_bytes: u64,
    /// The share of its demanded (block, layer step) pairs that had a usable fast copy when the step asked.
    pub hit_rate: f64,
    /// Time it waited for memory, in seconds.
    pub stall_s: f64,
    /// Time it computed.
    pub compute_s: f64,
    /// Time it had nothing to compute, before the first requests and after the last ones included.
    pub idle_s: f64,
    /// Mean drift of a step over its layers.
    pub drift_mean: f64,
    /// Largest drift of a step over its layers, at the upper confidence bound.
    pub drift_max: f64,
    /// What blocks, caches and resident weights took of its fast memory at their peak.
    pub fast_peak_bytes: u64,
}

/// How evenly the tokens of all layer steps went to the accelerators that have experts of their own: those at the one with the most,
/// over the mean.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ExpertBalance {
    /// Replicas a layer.
    pub replicas: u32,
    /// With them.
    pub max_over_mean: f64,
    /// If there were none, in the same steps.
    pub max_over_mean_without: f64,
    /// How often tokens went to a copy that was no longer there when they came: those experts were fetched from home.
    pub outdated: u64,
}

/// What one state held.
#[derive(Clone, Debug, Serialize)]
pub struct StateUse {
    /// S1 to S7.
    pub state: &'static str,
    /// Native bytes times seconds.
    pub byte_seconds: f64,
}

/// An edge and how often it was taken.
#[derive(Clone, Debug, Serialize)]
pub struct Transition {
    /// The state before.
    pub from: &'static str,
    /// The state after.
    pub to: &'static str,
    /// How often.
    pub count: u64,
}

impl Summary {
    /// The summary of a run of `policy` that took `wall_s` seconds of real time.
    pub fn new(case: &Case, outcome: &Outcome, policy: &str, wall_s: f64) -> Summary {
        let tally = outcome.orchestrator.tally();
        let context = outcome.orchestrator.context();
        let end = outcome.world.now();
        let seconds = Nanos(end.0).as_secs_f64();
        let rate = |count: u64| ratio(count as f64, seconds);
        let by_state = STATES[..3].iter().zip(tally.hits_by_state);
        Summary {
            latencies: latencies(&tally.latencies),
            output_throughput_tok_s: rate(tally.output_tokens),
            request_throughput_rps: rate(tally.completed),
            goodput_rps: rate(tally.good),
            compute_utilization: ratio(outcome.world.compute_time().as_secs_f64(), seconds),
            mean_batch: ratio(tally.batch_time as f64, tally.step_time.0 as f64),
            mean_waiting: ratio(tally.queue_time as f64, tally.step_time.0 as f64),
            stall_fraction: ratio(tally.stall_total().as_secs_f64(), tally.step_time.as_secs_f64()),
            stall_ms_by_cause: CAUSES
                .iter()
                .zip(tally.stall)
                .map(|(c, time)| (c.1, time.as_millis_f64()))
                .collect(),
            hidden_transfer_share: hidden(case, outcome),
            hit_rate: ratio(tally.hits() as f64, tally.demanded as f64),
            hit_rate_by_state: by_state
                .map(|(s, hits)| (s.code(), ratio(hits as f64, tally.demanded as f64)))
                .collect(),
            drift_mean: context.guard.drift_mean(),
            drift_max: context.guard.drift_max(),
            drift_budget: context.guard.stated_budget(),
            tenants: tenants(case, outcome, seconds),
            expert_ranks: expert_ranks(case, outcome),
            expert_balance: case.share.is_part().then(|| expert_balance(case, outcome)),
            losses: losses(outcome),
            pipeline_stages: pipeline_stages(case, outcome),
            vetoes: REASONS
                .iter()
                .zip(tally.vetoes)
                .map(|(r, count)| Veto { reason: r.name(), count })
                .collect(),
            links: links(case, outcome, seconds),
            tiers: tiers(case, outcome, seconds),
            states: states(context.ledger.states().byte_seconds(end)),
            transitions: transitions(context.ledger.states().transitions()),
            speculations: tally.speculations,
            speculations_used: tally.speculations_used,
            read_ahead: read_ahead(case, outcome),
            hosted: tally.hosted,
            near: near(outcome, seconds),
            skipped: tally.skipped,
            extra_waves: tally.extra_waves,
            requests_completed: tally.completed,
            prompt_tokens: tally.prompt_tokens,
            recomputed_tokens: tally.recomputed_tokens,
            cache: outcome.orchestrator.cache_use().map(CacheFigures::from),
            checkpoints: CheckpointFigures::new(outcome),
            output_tokens: tally.output_tokens,
            layer_steps: tally.layer_steps,
            operator_time_share: outcome.world.provenance().by_name(),
            gates: outcome.world.gates(),
            routing: case.routing_followed(),
            policy: policy.to_owned(),
            events: outcome.world.ticks(),
            load_s: Nanos(outcome.world.loaded().0).as_secs_f64(),
            simulated_s: seconds,
            compute_s: outcome.world.compute_time().as_secs_f64(),
            seed: case.seed,
            hotset_version: env!("CARGO_PKG_VERSION"),
            events_per_s: ratio(outcome.world.ticks() as f64, wall_s),
            wall_s,
        }
    }

    /// All stall, in seconds.
    pub fn stall_s(&self) -> f64 {
        self.stall_ms_by_cause.values().sum::<f64>() / 1e3
    }
}

pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// What one of several models on a machine has put out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TenantFigures {
    /// Its name: the model's, or that of the key `tenants`.
    pub name: String,
    /// Its requests that were served.
    pub requests_completed: u64,
    /// Tokens, or other things, that they put out a second.
    pub output_throughput_tok_s: f64,
    /// As those of all, but for gaps between tokens.
    #[serde(flatten)]
    pub latencies: IndexMap<String, Option<f64>>,
}

fn tenants(case: &Case, outcome: &Outcome, seconds: f64) -> Vec<TenantFigures> {
    let names = std::iter::once(&case.model.name).chain(case.tenants.iter().map(|tenant| &tenant.name));
    let all = names.zip(&outcome.orchestrator.tally().tenants);
    let figures = all.map(|(name, tenant)| TenantFigures {
        name: name.clone(),
        requests_completed: tenant.completed,
        output_throughput_tok_s: ratio(tenant.output_tokens as f64, seconds),
        latencies: latencies(&tenant.latencies),
    });
    figures.collect()
}

/// What a summary holds latencies of.
pub(crate) const LATENCIES: [&str; 5] = ["ttft", "tpot", "itl", "e2e", "queue"];
/// The figures of each.
pub(crate) const PERCENTILES: [&str; 5] = ["mean", "p50", "p90", "p95", "p99"];

fn latencies(all: &Latencies) -> IndexMap<String, Option<f64>> {
    let sketches = [&all.ttft, &all.tpot, &all.itl, &all.e2e, &all.queue];
    let figures = |(name, sketch): (&'static str, &Sketch)| {
        let percentiles = sketch.percentiles([50.0, 90.0, 95.0, 99.0]);
        let [p50, p90, p95, p99] = percentiles.map_or([None; 4], |found| found.map(Some));
        let named = PERCENTILES.into_iter().zip([sketch.mean(), p50, p90, p95, p99]);
        named.map(move |(point, nanos)| (format!("{point}_{name}_ms"), nanos.map(|nanos| nanos / 1e6)))
    };
    LATENCIES.into_iter().zip(sketches).flat_map(figures).collect()
}

/// A percentile of a sorted sample, linear between ranks.
pub fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let rank = percent / 100.0 * last as f64;
    let below = rank.floor() as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (rank - below as f64) * (sorted[above] - sorted[below]))
}

fn expert_ranks(case: &Case, outcome: &Outcome) -> Vec<RankUse> {
    let of = |(orchestrator, world): (&Orchestrator, &World)| {
        let tally = orchestrator.tally();
        RankUse {
            hit_rate: ratio(tally.hits() as f64, tally.demanded as f64),
            stall_s: tally.stall_total().as_secs_f64(),
            compute_s: world.compute_time().as_secs_f64(),
            waited_s: world.waited().as_secs_f64(),
        }
    };
    let first = std::iter::once((&outcome.orchestrator, &outcome.world));
    first.chain(outcome.world.others()).take_while(|_| case.share.is_part()).map(of).collect()
}

fn expert_balance(case: &Case, outcome: &Outcome) -> ExpertBalance {
    let ExpertShare { of, replicas, .. } = case.share;
    let [max_over_mean, max_over_mean_without] = outcome.world.balance().max_over_mean(of);
    ExpertBalance { replicas, max_over_mean, max_over_mean_without, outdated: outcome.world.outdated() }
}

fn pipeline_stages(case: &Case, outcome: &Outcome) -> Vec<StageUse> {
    let end = Nanos(outcome.world.now().0);
    let first = std::iter::once((&outcome.orchestrator, &outcome.world));
    let stages = first.chain(outcome.world.others()).take_while(|_| case.stage.is_part());
    let mut before = 0;
    let reserved = std::iter::once(case.reserved).chain(case.later.iter().map(|stage| stage.reserved));
    let of = |((orchestrator, world), reserved): ((&Orchestrator, &World), Bytes)| {
        let (tally, context) = (orchestrator.tally(), orchestrator.context());
        let model = &context.model;
        let layers = [before, before + model.layers.len() - 1];
        before += model.layers.len();
        let blocks: Bytes = model.blocks.iter().map(|block| block.bytes(block.native)).sum();
        StageUse {
            layers,
            weight_bytes: (model.resident_bytes() + blocks).0,
            hit_rate: ratio(tally.hits() as f64, tally.demanded as f64),
            stall_s: tally.stall_total().as_secs_f64(),
            compute_s: world.compute_time().as_secs_f64(),
            idle_s: end.saturating_sub(tally.step_time).as_secs_f64(),
            drift_mean: context.guard.drift_mean(),
            drift_max: context.guard.drift_max(),
            fast_peak_bytes: (context.ledger.usage(context.costs.fast).peak + reserved).0,
        }
    };
    stages.zip(reserved).map(of).collect()
}

pub(crate) fn states(byte_seconds: [f64; STATES.len()]) -> Vec<StateUse> {
    STATES
        .iter()
        .zip(byte_seconds)
        .map(|(s, byte_seconds)| StateUse { state: s.code(), byte_seconds })
        .collect()
}

pub(crate) fn transitions(counts: &[[u64; STATES.len()]; STATES.len()]) -> Vec<Transition> {
    let pairs = STATES.iter().flat_map(|from| STATES.iter().map(move |to| (*from, *to)));
    pairs
        .map(|(from, to)| (from, to, counts[from as usize][to as usize]))
        .filter(|&(_, _, count)| count > 0)
        .map(|(from, to, count)| Transition { from: from.code(), to: to.code(), count })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_linear_between_ranks() {
        assert_eq!(percentile(&[], 50.0), None);
        assert_eq!(percentile(&[3.0], 99.0), Some(3.0));
        assert_eq!(percentile(&[0.0, 10.0], 25.0), Some(2.5));
        assert_eq!(percentile(&[0.0, 1.0, 2.0], 100.0), Some(2.0));
    }
}
