//! HOBBIT: what is missing is loaded in the precision that its gate weight deserves.
//!
//! Source: Tang et al., "HOBBIT: A Mixed Precision Expert Offloading System for Fast MoE Inference", arXiv 2411.01433.
//!
//! - *Precision*, on a miss only. The chosen experts are ranked by gate weight, normalised over the choice; the sum of the
//!   weights before an expert is its score. Up to T1 it is loaded in high precision, up to T2 in low precision, beyond
//!   that left out. Here high is the native format, and low the smallest format that kernels read directly and the
//!   floors allow. The guard has the last word: where the drift budget forbids a choice, the next better one is taken.
//! - *Prefetch*. The gates of the next layers are applied to the hidden state of the running one: the platform's
//!   look-ahead. Without one there is no prefetch. From the nearest layer on, at most three ahead, the first with an
//!   expert missing is prefetched, in the precision that the expected weights deserve. Experts expected are evicted only
//!   where no other can be.
//! - *Eviction*. The least `w1 R/T + w2 F/T + w3 H/T + w4 (1 - d/L)`: R the token of the last use, F the uses and H
//!   those in high precision, T the tokens so far, all of the running sequence; d the layers until the block's layer
//!   comes, of L.
//!
//! Unspecified and chosen: the four weights are equal. High and low copies have caches of their own, whose sizes the
//! paper sets by hand; here low copies give way once they take a twentieth of fast memory: a high copy serves whoever
//! asks for a low one, so more costs more than it brings. An expert that deserves high precision and has a low copy is
//! loaded again.
//!
//! Differences: the paper's copies cannot be stopped once begun; here prefetches are cut into chunks, and demands go
//! between. The paper serves one sequence: in a batch the ranks are of the gate weights summed over it, and the counts
//! begin anew whenever a request ends.

use super::look_ahead::{AHEAD, Expected, gate_squared, prefetch};
use super::per_layer::{PerLayer, Ranking};
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::{Form, Routed};
use crate::format::FormatId;
use crate::id::{BlockId, LayerId, RequestId};
use crate::record::Action;
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "hobbit",
    about: "loads what is missing in the precision its gate weight deserves, with look-ahead (arXiv 2411.01433)",
    params: PARAMS,
    simulate: Some(simulate),
    ..Entry::ONLINE
};

const PARAMS: &[Param] = &[
    share("t1", "gate weight before an expert up to which it is loaded in high precision", 0.6),
    share("t2", "gate weight before an expert up to which it is loaded in low precision, else left out", 0.9),
    AHEAD,
    share("recency", "weight of the last use in what is kept", 0.25),
    share("frequency", "weight of the uses in what is kept", 0.25),
    share("high_use", "weight of the uses in high precision in what is kept", 0.25),
    share("nearness", "weight of the nearness of the layer in what is kept", 0.25),
    share("low_share", "share of fast memory beyond which low copies give way first", 0.05),
];

const fn share(name: &'static str, about: &'static str, default: f64) -> Param {
    Param { name, about, default, min: 0.0, max: 1.0, scale: Scale::Linear }
}

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[t1, t2, ahead, recency, frequency, high_use, nearness, low_share] = input.params else {
        return Err(SimulateError::Params);
    };
    let (blocks, layers) = (input.model.blocks.len(), input.model.layers.len());
    Ok(Box::new(Hobbit {
        thresholds: Thresholds { t1, t2 },
        weights: Weights { recency, frequency, high_use, nearness },
        low_share,
        ahead: ahead as u32,
        uses: vec![Uses::default(); blocks],
        deserved: vec![Precision::High; blocks],
        tokens: 0,
        expected: Expected::new(layers),
        high: Ranking::new(layers),
        low: Ranking::new(layers),
        low_bytes: PerLayer::new(layers),
        ranked: Vec::new(),
    }))
}

/// What an expert's gate weight deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Skip,
    Low,
    High,
}

#[derive(Clone, Copy, Debug)]
struct Thresholds {
    t1: f64,
    t2: f64,
}

impl Thresholds {
    /// Ranks a choice by gate weight, and says what each of it deserves.
    fn rank(self, routed: &[Routed], ranked: &mut Vec<(Routed, Precision)>) {
        ranked.clear();
        ranked.extend(routed.iter().map(|&expert| (expert, Precision::High)));
        ranked
            .sort_by(|(a, _), (b, _)| b.gate_squared.total_cmp(&a.gate_squared).then(a.block.cmp(&b.block)));
        let weight = |expert: &Routed| f64::from(expert.gate_squared).max(0.0).sqrt();
        let whole: f64 = ranked.iter().map(|(expert, _)| weight(expert)).sum();
        let mut before = 0.0;
        for (expert, precision) in ranked {
            *precision = self.deserves(before, whole);
            before += weight(expert);
        }
    }

    fn deserves(self, before: f64, whole: f64) -> Precision {
        if before <= self.t1 * whole {
            Precision::High
        } else if before <= self.t2 * whole {
            Precision::Low
        } else {
            Precision::Skip
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Weights {
    recency: f64,
    frequency: f64,
    high_use: f64,
    nearness: f64,
}

/// Uses of a block in the running sequence.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    /// The token of the last, from one on.
    last: u32,
    count: u32,
    /// Those that deserved high precision.
    high: u32,
}

#[derive(Debug)]
struct Hobbit {
    thresholds: Thresholds,
    weights: Weights,
    low_share: f64,
    ahead: u32,
    uses: Vec<Uses>,
    /// What each block deserved when its layer last chose it.
    deserved: Vec<Precision>,
    /// Tokens that the running sequence has put out.
    tokens: u32,
    expected: Expected,
    high: Ranking,
    low: Ranking,
    /// Bytes of low copies in fast memory.
    low_bytes: PerLayer<u64>,
    /// Empty between uses; kept for its memory.
    ranked: Vec<(Routed, Precision)>,
}

/// The smallest format below the native one that may be used.
fn low_format(context: &Context, block: BlockId) -> Option<FormatId> {
    let data = context.model.block(block);
    let usable = |format: &FormatId| {
        *format != data.native && format.get().direct && context.guard.error(block, *format).is_some()
    };
    let formats = context.costs.formats.iter().copied().filter(usable);
    let smaller = formats.filter(|&format| data.bytes(format) < data.bytes(data.native));
    smaller.min_by_key(|&format| (data.bytes(format), format))
}

fn low_copy(context: &Context, block: BlockId) -> Option<Form> {
    let native = context.model.block(block).native;
    context.ledger.fast_copies(block).find(|copy| copy.format != native)
}

fn low_bytes(context: &Context, layer: LayerId) -> u64 {
    let data = context.model.layer(layer);
    let blocks = (data.first_block.0..data.first_block.0 + data.blocks).map(BlockId);
    let copies = blocks.filter_map(|block| Some((block, low_copy(context, block)?)));
    copies.map(|(block, copy)| context.ledger.footprint(block, copy).0).sum()
}

impl Hobbit {
    /// The least valuable copy of one of the caches: the high one holds native copies, the low one all others.
    fn least(&mut self, context: &Context, cache: Precision) -> Option<Victim> {
        let Hobbit { weights, uses, expected, .. } = self;
        let copy = |block: BlockId| match cache {
            Precision::High => context.ledger.full_copy(block),
            _ => low_copy(context, block),
        };
        let within = |block: BlockId| {
            copy(block)?;
            let Uses { last, count, high } = uses[block.index()];
            let counted = weights.recency * f64::from(last)
                + weights.frequency * f64::from(count)
                + weights.high_use * f64::from(high);
            Some(if expected.holds(context, block) { f64::INFINITY } else { counted })
        };
        let (running, layers) = (u32::from(context.signals.layer.0), context.signals.layers);
        let tokens = f64::from(self.tokens + 1);
        let across = |layer: LayerId, counted: f64| {
            let ahead = (u32::from(layer.0) + layers - running) % layers;
            counted / tokens + weights.nearness * (1.0 - f64::from(ahead) / f64::from(layers))
        };
        let ranking = if cache == Precision::High { &mut self.high } else { &mut self.low };
        let (_, block) = ranking.least(context, within, across)?;
        Some(Victim { block, form: copy(block)?, terms: None })
    }

    fn low_is_full(&mut self, context: &Context) -> bool {
        if context.costs.formats.len() == 1 {
            return false;
        }
        let held = self.low_bytes.sum(context, |layer| low_bytes(context, layer));
        let capacity = context.ledger.usage(context.costs.fast).capacity;
        held as f64 > self.low_share * capacity.0 as f64
    }
}

/// The prefetches that a coming choice deserves.
fn prefetches(context: &Context, ranked: &[(Routed, Precision)], proposals: &mut Vec<Proposal>) {
    for (expert, precision) in ranked {
        let block = expert.block;
        let low = low_format(context, block).filter(|_| context.guard.budget() > 0.0);
        let format = match precision {
            Precision::Skip if low.is_some() => continue,
            Precision::Low => low,
            _ => None,
        };
        if context.ledger.full_copy(block).is_none() {
            let format = format.unwrap_or(context.model.block(block).native);
            proposals.extend(prefetch(context, block, format, gate_squared(context, expert), 1.0));
        }
    }
}

impl Policy for Hobbit {
    fn foresee(&mut self, _context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.foresee(layer, routed);
        self.high.forget(layer);
        self.low.forget(layer);
    }

    /// The layer is pinned next, and so ranked anew.
    fn observe(&mut self, _context: &Context, layer: LayerId, routed: &[Routed]) {
        self.expected.passed(layer);
        self.thresholds.rank(routed, &mut self.ranked);
        for (expert, precision) in &self.ranked {
            let place = expert.block.index();
            self.deserved[place] = *precision;
            let uses = &mut self.uses[place];
            uses.last = self.tokens + 1;
            uses.count += 1;
            uses.high += u32::from(*precision == Precision::High);
        }
    }

    /// The quickest way that is at least as precise as the block deserves: leaving out is quicker than loading, and a
    /// low copy quicker than a high one.
    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        let format = proposal.route.to.format;
        let precision = match proposal.action {
            Action::InPlace => return None,
            Action::Skip => Precision::Skip,
            _ if format == context.model.block(proposal.block).native => Precision::High,
            _ if Some(format) == low_format(context, proposal.block) => Precision::Low,
            _ => return None,
        };
        let allowed = precision >= self.deserved[proposal.block.index()];
        allowed.then(|| Terms { moving: proposal.wait().0 as f64, ..Terms::default() }.sum())
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        let (first, then) = match self.low_is_full(context) {
            true => (Precision::Low, Precision::High),
            false => (Precision::High, Precision::Low),
        };
        self.least(context, first).or_else(|| self.least(context, then))
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        let Hobbit { expected, thresholds, ranked, .. } = self;
        for (_, routed) in expected.coming(context.signals.layer, self.ahead) {
            thresholds.rank(routed, ranked);
            prefetches(context, ranked, proposals);
            if !proposals.is_empty() {
                break;
            }
        }
    }

    fn step_done(&mut self, _context: &Context, _drift: f64) {
        self.tokens += 1;
    }

    fn request_done(&mut self, _context: &Context, _request: RequestId) {
        self.tokens = 0;
        self.uses.fill(Uses::default());
        self.high.forget_all();
        self.low.forget_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: Thresholds = Thresholds { t1: 0.6, t2: 0.9 };

    /// What the experts of a choice with these weights deserve, by rank.
    fn ranks(weights: &[f64]) -> Vec<Precision> {
        let expert = |(block, weight): (u32, &f64)| Routed {
            block: BlockId(block),
            tokens: 1,
            gate_squared: (weight * weight) as f32,
        };
        let routed: Vec<Routed> = (0..).zip(weights).map(expert).collect();
        let mut ranked = Vec::new();
        PAPER.rank(&routed, &mut ranked);
        ranked.iter().map(|(_, precision)| *precision).collect()
    }

    #[test]
    fn the_weight_before_an_expert_decides() {
        use Precision::{High, Low, Skip};
        assert_eq!(ranks(&[0.41, 0.59]), [High, High]);
        assert_eq!(ranks(&[0.61, 0.39]), [High, Low]);
        assert_eq!(ranks(&[0.09, 0.91]), [High, Skip]);
        assert_eq!(ranks(&[1.0, 8.0, 4.0, 2.0]), [High, High, Low, Skip]);
        assert_eq!(ranks(&[0.0, 0.0]), [High, High]);
    }

    /// If the ratio of Mixtral's two gate weights is uniform, the shares have a closed form: 2/3, 5/18 and 1/18. The
    /// paper measured 67, 30 and 3 %.
    #[test]
    fn mixtral_loads_the_published_shares() {
        const DRAWS: usize = 9000;
        let mut counts = [0.0; 3];
        for draw in 0..DRAWS {
            let ratio = (draw as f64 + 0.5) / DRAWS as f64;
            for precision in ranks(&[1.0, ratio]) {
                counts[precision as usize] += 0.5 / DRAWS as f64;
            }
        }
        for (share, (closed, published)) in
            counts.into_iter().zip([(1.0 / 18.0, 0.03), (5.0 / 18.0, 0.30), (2.0 / 3.0, 0.67)])
        {
            assert!((share - closed).abs() < 1e-3, "{share}, not {closed}");
            assert!((share - published).abs() < 0.03, "{share}, {published} published");
        }
    }
}
