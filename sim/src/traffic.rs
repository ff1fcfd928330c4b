//! What a run carried over links and kept in memories.

use crate::report::ratio;
use crate::simulate::{Case, Outcome};
use crate::world::NearCount;
use policy::TierId;
use policy::machine::{Class, NearProcessor};
use serde::Serialize;

/// What one direction of a link did.
#[derive(Clone, Debug, Serialize)]
pub struct LinkUse {
    /// The link.
    pub name: String,
    /// `dram to hbm`.
    pub direction: String,
    /// Bytes carried.
    pub bytes: u64,
    /// Share of the run in which it was busy.
    pub utilization: f64,
    /// Mean wait for an engine.
    pub mean_queue_us: f64,
}

/// What one memory did.
#[derive(Clone, Debug, Serialize)]
pub struct TierUse {
    /// The tier.
    pub name: String,
    /// Bytes it may hold, resident weights and caches included.
    pub capacity_bytes: u64,
    /// The most it held, resident weights and caches included.
    pub peak_bytes: u64,
    /// Compute reads served from it.
    pub hits: u64,
    /// Copies given up in it.
    pub evictions: u64,
    /// Bytes read by moves and compute.
    pub read_bytes: u64,
    /// Bytes written by moves.
    pub write_bytes: u64,
    /// What that comes to in a day.
    pub write_bytes_per_day: f64,
    /// The share of what the machine file says it endures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endurance_share: Option<f64>,
}

/// What came of reading ahead into staging tiers.
#[derive(Clone, Debug, Serialize)]
pub struct ReadAheadUse {
    /// Copies begun.
    pub copies: u64,
    /// Those that were then fetched from where they had been read to.
    pub used: u64,
    /// The share of what steps needed from beyond the staging tiers that had been read before they asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_share: Option<f64>,
}

/// `None` where no copies are staged.
pub(crate) fn read_ahead(case: &Case, outcome: &Outcome) -> Option<ReadAheadUse> {
    let ahead = outcome.orchestrator.tally().read_ahead;
    let used = ReadAheadUse { copies: ahead.copies, used: ahead.used, hidden_share: ahead.hidden_share() };
    (!case.staging.is_empty()).then_some(used)
}

pub(crate) fn links(case: &Case, outcome: &Outcome, seconds: f64) -> Vec<LinkUse> {
    let name = |tier| case.machine.tier(tier).name.as_str();
    let each = outcome.world.links().map(|(link, count)| LinkUse {
        name: link.name.clone(),
        direction: format!("{} to {}", name(link.from), name(link.to)),
        bytes: count.bytes,
        utilization: ratio(count.busy.as_secs_f64(), seconds),
        mean_queue_us: ratio(count.queued.as_secs_f64() * 1e6, count.copies as f64),
    });
    each.collect()
}

/// The part of the time of links into the fast tier for which no step waited.
pub(crate) fn hidden(case: &Case, outcome: &Outcome) -> Option<f64> {
    let into_fast = outcome.world.links().filter(|(link, _)| case.machine.tier(link.to).class == Class::Fast);
    let busy: f64 = into_fast.map(|(_, count)| count.busy.as_secs_f64()).sum();
    let waited = outcome.orchestrator.tally().stall_total().as_secs_f64();
    (busy > 0.0).then(|| (1.0 - waited / busy).max(0.0))
}

pub(crate) fn tiers(case: &Case, outcome: &Outcome, seconds: f64) -> Vec<TierUse> {
    let per_day = |bytes: u64| ratio(bytes as f64 * 86_400.0, seconds);
    let ledger = &outcome.orchestrator.context().ledger;
    let each = case.machine.tiers.iter().enumerate().map(|(index, tier)| {
        let id = TierId(index as u8);
        let usage = ledger.usage(id);
        let traffic = outcome.world.memory().traffic(id);
        let reserved = if tier.class == Class::Fast { case.reserved.0 } else { 0 };
        TierUse {
            name: tier.name.clone(),
            // Of what blocks and caches share, caches may hold a part at the end.
            capacity_bytes: case.budgets[index].0 + reserved,
            peak_bytes: usage.peak.0 + reserved,
            hits: traffic.hits,
            evictions: usage.evictions,
            read_bytes: traffic.read,
            write_bytes: traffic.written,
            write_bytes_per_day: per_day(traffic.written),
            endurance_share: tier
                .endurance
                .map(|endurance| ratio(per_day(traffic.written), endurance.0 as f64)),
        }
    });
    each.collect()
}

/// What a processor beside memories did.
#[derive(Clone, Debug, Serialize)]
pub struct NearUse {
    /// `host`, or the name of the memory that it is part of.
    pub name: String,
    /// Blocks that it computed.
    pub blocks: u64,
    /// Time it was busy, in seconds.
    pub busy_s: f64,
    /// The share of the run in which it was.
    pub utilization: f64,
}

/// What processors beside memories did; nothing where none may compute.
pub(crate) fn near(outcome: &Outcome, seconds: f64) -> Vec<NearUse> {
    let costs = &outcome.orchestrator.context().costs;
    let may =
        outcome.world.near().filter(|(near, _)| near.tiers.iter().any(|&tier| costs.beside(tier).is_some()));
    let of = |(near, count): (&NearProcessor, NearCount)| NearUse {
        name: near.name.clone(),
        blocks: count.blocks,
        busy_s: count.busy.as_secs_f64(),
        utilization: ratio(count.busy.as_secs_f64(), seconds),
    };
    may.map(of).collect()
}
