//! HybriMoE: a layer's experts are split over accelerator, host and link by a greedy timeline, and kept by their recent
//! scores.
//!
//! Source: Zhong et al., "HybriMoE: Hybrid CPU-GPU Scheduling and Cache Management for Efficient MoE Inference", arXiv
//! 2504.05897.
//!
//! - *Eviction* (MRS, minus recent score). At every choice of a layer, `S <- a TopP(scores) + (1 - a) S` for all of its
//!   experts, `a` = 0.5; the least S is evicted.
//! - *Split*. What is resident is computed by the accelerator. Of what is missing, the expert with the largest load may
//!   cross the link, and the one with the smallest may be computed by the host, or by the processor of the memory it lies in:
//!   whichever would be done first is assigned, until none is left. Where none may compute, everything crosses the link.
//! - *Prefetch* by impact. For the experts that look-ahead expects of coming layers (three at most), the timeline is laid
//!   out with and without each; the one that shortens it most is prefetched. Without look-ahead there is no prefetch.
//!
//! Unspecified and chosen: P is the number of chosen experts, as a routing trace has no scores of the others; a score is
//! the root of the squared gate weight per token. Load is tokens. Times are those of an idle machine. A prefetch is
//! expected to be as far as the mean idle time of the link until then takes it. The nearest layer comes first, and is
//! planned anew after each prefetch; four may be under way.
//!
//! Differences: the paper lets an idle host compute resident experts too; here a resident block is always computed by the
//! accelerator. In a batch the scores are those of the whole batch, per token.

use super::look_ahead::{AHEAD, Expected, PREFETCHES, gate_squared, prefetch, room_for};
use super::per_layer::Ranking;
use super::reactive::at_full_precision;
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::{Form, Routed};
use crate::id::{BlockId, LayerId, ProcessorId};
use crate::record::Action;
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "hybri_moe",
    about: "splits misses over link and host by a greedy timeline, keeps by recent gate weight (arXiv 2504.05897)",
    params: &[
        Param {
            name: "newest",
            about: "weight of the newest score in the running mean",
            default: 0.5,
            min: 0.0,
            max: 1.0,
            scale: Scale::Linear,
        },
        AHEAD,
        PREFETCHES,
    ],
    simulate: Some(simulate),
    ..Entry::ONLINE
};

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[newest, ahead, prefetches] = input.params else { return Err(SimulateError::Params) };
    Ok(Box::new(HybriMoe {
        scores: Scores { newest, means: vec![0.0; input.model.blocks.len()] },
        plan: Plan::default(),
        coming: Plan::default(),
        expected: Expected::new(input.model.layers.len()),
        ranking: Ranking::new(input.model.layers.len()),
        ahead: ahead as u32,
        prefetches: prefetches as usize,
    }))
}

/// The recent score of every block: a running mean.
#[derive(Clone, Debug)]
struct Scores {
    newest: f64,
    means: Vec<f64>,
}

impl Scores {
    /// The blocks of a layer from `first` on, `blocks` of them, were chosen with these scores, or not.
    fn observe(&mut self, first: BlockId, blocks: u32, chosen: impl Iterator<Item = (BlockId, f64)>) {
        let layer = &mut self.means[first.index()..first.index() + blocks as usize];
        layer.iter_mut().for_each(|mean| *mean *= 1.0 - self.newest);
        for (block, score) in chosen {
            self.means[block.index()] += self.newest * score;
        }
    }
}

/// A block to be computed, and the ways to do it, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Job {
    block: BlockId,
    /// Tokens that go through it.
    load: u32,
    /// Time of the accelerator.
    compute: u64,
    /// Time of the link before, where a copy is missing.
    fetch: u64,
    /// Time of the processor beside its quickest copy instead, if there is one that may.
    near: Option<(ProcessorId, u64)>,
}

impl Job {
    fn new(context: &Context, expert: &Routed) -> Option<Job> {
        let (ledger, block) = (&context.ledger, expert.block);
        let data = context.model.block(block);
        let accelerator = &context.machine.accelerator;
        let operations = data.elements().saturating_mul(2 * u64::from(expert.tokens));
        let read = accelerator.read.time_for(data.bytes(data.native));
        let in_place = context.costs.in_place(ledger, block, expert.tokens);
        let in_place =
            in_place.filter_map(|route| Some((context.costs.beside(route.to.tier)?, route.time.0)));
        Some(Job {
            block,
            load: expert.tokens,
            compute: read.max(accelerator.flops.time_for(operations)).0,
            fetch: context.costs.fetch(ledger, block, data.native)?.time.0,
            near: in_place.min_by_key(|&(_, time)| time),
        })
    }
}

/// Until when each is busy, in nanoseconds from the layer's choice on.
#[derive(Clone, Debug, Default, PartialEq)]
struct Timeline {
    accelerator: u64,
    link: u64,
    /// The host, and processors of memories.
    near: Vec<u64>,
}

impl Timeline {
    /// A block takes so long of the link, and then of the accelerator.
    fn cross(&mut self, job: &Job, fetch: u64) {
        self.link += fetch;
        self.accelerator = self.accelerator.max(self.link) + job.compute;
    }

    /// When the accelerator would be done with such a block.
    fn crossed(&self, job: &Job) -> u64 {
        self.accelerator.max(self.link + job.fetch) + job.compute
    }

    /// When that processor would be done with a block that takes it so long.
    fn computed(&self, (by, time): (ProcessorId, u64)) -> u64 {
        self.near.get(by.index()).copied().unwrap_or(0) + time
    }

    fn compute(&mut self, by: ProcessorId, until: u64) {
        self.near.resize(self.near.len().max(by.index() + 1), 0);
        self.near[by.index()] = until;
    }

    fn end(&self) -> u64 {
        self.near.iter().copied().fold(self.accelerator.max(self.link), u64::max)
    }
}

/// Who does what of a layer's missing blocks.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// Missing blocks, the largest load first; the first `crossing` of them cross the link, the others are computed in place.
    missing: Vec<Job>,
    crossing: usize,
    /// What comes before them: the blocks that are resident, or under way.
    begin: Timeline,
    /// When all is done.
    end: u64,
}

impl Plan {
    /// Plans a layer's choice.
    fn lay_out(&mut self, context: &Context, routed: &[Routed]) {
        let ledger = &context.ledger;
        self.missing.clear();
        self.begin = Timeline::default();
        for job in routed.iter().filter_map(|expert| Job::new(context, expert)) {
            if ledger.is_fast(job.block) {
                self.begin.accelerator += job.compute;
            } else if !ledger.is_moving(job.block) {
                self.missing.push(job);
            }
        }
        for job in routed.iter().filter_map(|expert| Job::new(context, expert)) {
            if let Some((_, flight)) = ledger.flight_of(job.block) {
                let left =
                    flight.total.saturating_sub(flight.arrived).0 as f64 / flight.total.0.max(1) as f64;
                self.begin.cross(&job, (job.fetch as f64 * left) as u64);
            }
        }
        self.missing.sort_by(|a, b| b.load.cmp(&a.load).then(a.block.cmp(&b.block)));
        self.split();
    }

    fn split(&mut self) {
        let (crossing, timeline) = self.timeline(self.begin.clone(), None);
        self.crossing = crossing;
        self.end = timeline.end();
    }

    /// Splits the missing blocks, but for the one at `done`: how many cross the link, and until when all are busy.
    fn timeline(&self, begin: Timeline, done: Option<usize>) -> (usize, Timeline) {
        let (mut crossing, mut timeline) = (0, begin);
        let others = self.missing.iter().enumerate().filter(|&(place, _)| Some(place) != done);
        let mut jobs = others.map(|(_, job)| job);
        while let (Some(large), Some(small)) = (jobs.clone().next(), jobs.clone().next_back()) {
            match small.near.map(|near| (near.0, timeline.computed(near))) {
                Some((by, until)) if until <= timeline.crossed(large) => {
                    timeline.compute(by, until);
                    jobs.next_back();
                }
                _ => {
                    timeline.cross(large, large.fetch);
                    crossing += 1;
                    jobs.next();
                }
            }
        }
        (crossing, timeline)
    }

    fn is_hosted(&self, block: BlockId) -> bool {
        self.missing[self.crossing..].iter().any(|job| job.block == block)
    }

    /// How much sooner the layer would be done with the block at that place under way and `ahead` nanoseconds of the way
    /// behind it when the layer chooses.
    fn impact(&self, place: usize, ahead: u64) -> u64 {
        let job = &self.missing[place];
        let mut begin = self.begin.clone();
        begin.cross(job, job.fetch.saturating_sub(ahead));
        self.end.saturating_sub(self.timeline(begin, Some(place)).1.end())
    }

    /// Takes the missing block of the greatest impact out, if there is one of any: it will be under way.
    fn take_best(&mut self, ahead: u64) -> Option<(Job, u64)> {
        let impacts = (0..self.missing.len()).map(|place| (self.impact(place, ahead), place));
        let (impact, place) = impacts.max_by_key(|&(impact, place)| (impact, std::cmp::Reverse(place)))?;
        if impact == 0 {
            return None;
        }
        let job = self.missing.remove(place);
        self.begin.cross(&job, job.fetch.saturating_sub(ahead));
        self.split();
        Some((job, impact))
    }
}

#[derive(Debug)]
struct HybriMoe {
    scores: Scores,
    /// The running layer's.
    plan: Plan,
    /// A coming layer's; kept for its memory.
    coming: Plan,
    expected: Expected,
    ranking: Ranking,
    ahead: u32,
    prefetches: usize,
}

impl Policy for HybriMoe {
    fn foresee(&mut self, _context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.foresee(layer, routed);
    }

    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.passed(layer);
        let data = context.model.layer(layer);
        let chosen = routed.iter().map(|expert| (expert.block, gate_squared(context, expert).sqrt()));
        self.scores.observe(data.first_block, data.blocks, chosen);
        self.ranking.forget(layer);
        self.plan.lay_out(context, routed);
    }

    /// As planned; what is not planned comes after all that is, and serves only where the plan cannot.
    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        let hosted = proposal.action == Action::InPlace;
        let terms = match proposal.action {
            Action::InPlace => {
                let native = context.model.block(proposal.block).native;
                let whole = Form { tier: proposal.route.to.tier, format: native };
                let moving = proposal.wait().0 as f64;
                (proposal.route.to == whole).then(|| Terms { moving, ..Terms::default() }.sum())?
            }
            _ => at_full_precision(context, proposal)?,
        };
        let planned = self.plan.is_hosted(proposal.block) == hosted;
        let after = if planned { 0.0 } else { self.plan.end as f64 };
        Some(Terms { moving: terms.moving + after, ..terms }.sum())
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        let means = &self.scores.means;
        let (_, block) = self.ranking.least(context, |block| Some(means[block.index()]), |_, mean| mean)?;
        let form = context.ledger.fast_copies(block).next()?;
        Some(Victim { block, form, terms: None })
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        let most = room_for(context, self.prefetches);
        let under_way = self.prefetches - most;
        for (ahead, routed) in self.expected.coming(context.signals.layer, self.ahead) {
            self.coming.lay_out(context, routed);
            while proposals.len() < most {
                // Each prefetch has the idle link to itself once those before it are there.
                let idle = context.signals.idle_window.0.saturating_mul(u64::from(ahead));
                let link = self.coming.missing.first().map_or(0, |job| job.fetch);
                let before = link.saturating_mul((under_way + proposals.len()) as u64);
                let Some((job, impact)) = self.coming.take_best(idle.saturating_sub(before)) else { break };
                let native = context.model.block(job.block).native;
                let Some(proposal) = prefetch(context, job.block, native, 0.0, 1.0) else { continue };
                let terms = Terms { saved: impact as f64, ..proposal.terms }.sum();
                proposals.push(Proposal { terms, ..proposal });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(fetch: u64, host: Option<u64>, loads: &[u32], resident: u64) -> Plan {
        let job = |(block, &load): (u32, &u32)| Job {
            block: BlockId(block),
            load,
            compute: 1,
            fetch,
            near: host.map(|time| (ProcessorId(0), time * u64::from(load))),
        };
        let mut missing: Vec<Job> = (0..).zip(loads).map(job).collect();
        missing.sort_by_key(|job| std::cmp::Reverse(job.load));
        let begin = Timeline { accelerator: resident, ..Timeline::default() };
        let mut plan = Plan { missing, begin, ..Plan::default() };
        plan.split();
        plan
    }

    #[test]
    fn large_loads_cross_the_link_and_small_ones_stay_with_the_host() {
        let plan = plan(100, Some(40), &[1, 5, 2, 1], 10);
        let crossing: Vec<_> = plan.missing[..plan.crossing].iter().map(|job| job.load).collect();
        // The host takes 40, 80 and 160; the large one is there after 101.
        assert_eq!((crossing, plan.end), (vec![5], 160));
        assert!(plan.is_hosted(BlockId(3)) && !plan.is_hosted(BlockId(1)));
    }

    #[test]
    fn a_slow_host_is_left_alone_and_a_fast_one_does_everything() {
        assert_eq!(plan(100, Some(1000), &[1, 1, 1], 0).crossing, 3);
        assert_eq!(plan(100, Some(1), &[1, 1, 1], 0).crossing, 0);
        assert_eq!(plan(100, None, &[1, 1, 1], 0).end, 301);
    }

    #[test]
    fn the_impact_of_a_prefetch_is_what_the_layer_gains_by_it() {
        let alone = plan(100, None, &[1, 1], 0);
        assert_eq!((alone.end, alone.impact(0, 100), alone.impact(0, 30)), (201, 100, 30));
        // Beside a host the step ends with the slower of the two, and a prefetch that is late is worse than the host.
        let mut split = plan(100, Some(90), &[1, 1], 0);
        assert_eq!((split.end, split.impact(0, 100), split.impact(0, 5)), (101, 11, 5));
        assert_eq!(plan(100, Some(20), &[1], 0).impact(0, 60), 0);
        assert_eq!(split.take_best(100).map(|(job, impact)| (job.block, impact)), Some((BlockId(0), 11)));
        assert_eq!((split.end, split.missing.len()), (90, 1));
    }

    #[test]
    fn scores_are_means_of_the_recent_past() {
        let mut scores = Scores { newest: 0.5, means: vec![0.0; 4] };
        scores.observe(BlockId(1), 2, [(BlockId(1), 0.8)].into_iter());
        scores.observe(BlockId(1), 2, [(BlockId(2), 1.0)].into_iter());
        assert_eq!(scores.means, [0.0, 0.2, 0.5, 0.0]);
    }
}
