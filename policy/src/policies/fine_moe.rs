//! FineMoE: a token is matched with past ones by the path that its gates have taken so far.
//!
//! Source: Yu et al., "Taming Latency-Memory Trade-Off in MoE-Based LLM Serving via Fine-Grained Expert Offloading",
//! EuroSys 2026, arXiv 2502.05370.
//!
//! - An expert map holds the gate probabilities of every layer of one token step; 1000 are stored. The map nearest to the
//!   running step, by the cosine of the layers run so far, says what the layer `d` ahead will choose (d = 3 for Mixtral).
//! - Of that layer, experts are taken by descending probability while their sum is at most `1 - score`, the score being the
//!   cosine, and never fewer than the layer selects: the less alike the maps, the more experts.
//! - Taken experts are prefetched by descending `p / (layers ahead)`; a demand pauses them. The least `p * frequency` is
//!   evicted.
//!
//! Unspecified and chosen: a full store gives up the map nearest to the new one. Frequencies count layer steps of the whole
//! run. Four prefetches may be under way.
//!
//! Differences: the first `d` layers of a token are matched by its embedding in the paper; a routing trace has none, so the
//! path of the token before stands in. The trace holds the gate weights of the chosen experts only, normalised here over
//! the choice: all others have probability zero, never are more taken than were chosen, and a small constant is added
//! where experts are evicted, so that among them the frequency decides. In a batch a map is that of the whole step.

use super::activation_maps::{ActivationMaps, greatest};
use super::look_ahead::{PREFETCHES, prefetch, room_for};
use super::per_layer::Ranking;
use super::reactive::at_full_precision;
use crate::control::{Context, Policy, Proposal, Victim};
use crate::event::Routed;
use crate::id::{BlockId, LayerId};
use crate::registry::{Entry, Param, Scale, SimulateError, SimulateInput};
use crate::score::Terms;

/// Its registry entry.
pub const ENTRY: Entry = Entry {
    name: "fine_moe",
    about: "prefetches and keeps what the past token with the most similar path chose (arXiv 2502.05370)",
    params: &[
        Param {
            name: "maps",
            about: "past tokens that are kept",
            default: 1000.0,
            min: 1.0,
            max: 2000.0,
            scale: Scale::Linear,
        },
        Param {
            name: "ahead",
            about: "layers that the match looks ahead",
            default: 3.0,
            min: 1.0,
            max: 64.0,
            scale: Scale::Linear,
        },
        PREFETCHES,
    ],
    simulate: Some(simulate),
    ..Entry::ONLINE
};

/// What is added to every probability where experts are evicted.
const FLOOR: f64 = 1e-3;

fn simulate(input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
    let &[maps, ahead, prefetches] = input.params else { return Err(SimulateError::Params) };
    let (blocks, layers) = (input.model.blocks.len(), input.model.layers.len());
    Ok(Box::new(FineMoe {
        path: Path::new(blocks, layers, maps as usize),
        p: vec![0.0; blocks],
        visits: vec![0; blocks],
        taken: vec![Vec::new(); layers],
        ranking: Ranking::new(layers),
        ahead: ahead as u32,
        prefetches: prefetches as usize,
    }))
}

/// The running token's way through the layers, beside those of the past.
#[derive(Debug)]
struct Path {
    maps: ActivationMaps,
    /// For each layer, the squared length of each map up to and with it.
    lengths: ActivationMaps,
    /// The running map, and its squared length up to and with each layer.
    map: Vec<f32>,
    length: Vec<f32>,
    /// The products of the running map with those of the past, up to now.
    products: Vec<f32>,
    cosines: Vec<f32>,
    nearest: Option<usize>,
}

impl Path {
    fn new(blocks: usize, layers: usize, maps: usize) -> Path {
        Path {
            maps: ActivationMaps::new(blocks, maps),
            lengths: ActivationMaps::new(layers, maps),
            map: vec![0.0; blocks],
            length: vec![0.0; layers],
            products: Vec::with_capacity(maps),
            cosines: Vec::with_capacity(maps),
            nearest: None,
        }
    }

    /// A layer has chosen. Returns the place of the nearest map so far, and its cosine.
    fn follow(&mut self, layer: LayerId, routed: &[Routed]) -> Option<(usize, f32)> {
        let weight = |expert: &Routed| expert.gate_squared.max(0.0).sqrt();
        let whole: f32 = routed.iter().map(weight).sum();
        let mut length = layer.index().checked_sub(1).map_or(0.0, |before| self.length[before]);
        for expert in routed.iter().filter(|_| whole > 0.0) {
            let p = weight(expert) / whole;
            self.map[expert.block.index()] = p;
            self.maps.add_scaled(expert.block.index(), p, &mut self.products);
            length += p * p;
        }
        self.length[layer.index()] = length;
        self.cosines.clear();
        let lengths = self.products.iter().zip(self.lengths.column(layer.index()));
        self.cosines.extend(lengths.map(|(product, past)| {
            let lengths = (length * past).sqrt();
            if lengths > 0.0 { product / lengths } else { 0.0 }
        }));
        self.nearest = greatest(&self.cosines);
        self.nearest.map(|place| (place, self.cosines[place]))
    }

    /// The token is done: its map is kept.
    fn end(&mut self) {
        let place = self.maps.place(self.nearest.unwrap_or(0));
        self.maps.keep(place, self.map.iter().copied());
        self.lengths.keep(place, self.length.iter().copied());
        self.map.fill(0.0);
        self.length.fill(0.0);
        self.products.clear();
        self.products.resize(self.maps.column(0).len(), 0.0);
    }
}

#[derive(Debug)]
struct FineMoe {
    path: Path,
    /// The probability that the last match gave each block.
    p: Vec<f32>,
    /// Layer steps that chose each block.
    visits: Vec<u32>,
    /// For each layer, the blocks that the last match takes, by descending probability.
    taken: Vec<Vec<(f32, BlockId)>>,
    ranking: Ranking,
    ahead: u32,
    prefetches: usize,
}

/// Keeps of the experts, sorted by descending probability, those whose sum is at most `1 - score`, and `selected` at
/// least.
fn take(experts: &mut Vec<(f32, BlockId)>, score: f32, selected: usize) {
    let most = (1.0 - score).clamp(0.0, 1.0);
    let sums = experts.iter().scan(0.0, |sum, (p, _)| {
        *sum += p;
        Some(*sum)
    });
    let few = sums.take_while(|&sum| sum <= most).count();
    experts.truncate(few.max(selected));
}

impl FineMoe {
    /// A layer will choose like the map in that place.
    fn expect(&mut self, context: &Context, layer: LayerId, place: usize, score: f32) {
        let data = context.model.layer(layer);
        let taken = &mut self.taken[layer.index()];
        taken.clear();
        for block in (data.first_block.0..data.first_block.0 + data.blocks).map(BlockId) {
            let p = self.path.maps.column(block.index())[place];
            self.p[block.index()] = p;
            if p > 0.0 {
                taken.push((p, block));
            }
        }
        taken.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        take(taken, score, data.selected as usize);
        self.ranking.forget(layer);
    }
}

fn coming(context: &Context, ahead: u32) -> LayerId {
    LayerId(((u32::from(context.signals.layer.0) + ahead) % context.signals.layers) as u16)
}

impl Policy for FineMoe {
    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]) {
        for expert in routed {
            self.visits[expert.block.index()] += 1;
        }
        if let Some((place, score)) = self.path.follow(layer, routed) {
            self.expect(context, coming(context, self.ahead), place, score);
        }
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        at_full_precision(context, proposal)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        let FineMoe { p, visits, .. } = self;
        let within =
            |block: BlockId| Some((f64::from(p[block.index()]) + FLOOR) * f64::from(visits[block.index()]));
        let (_, block) = self.ranking.least(context, within, |_, worth| worth)?;
        let form = context.ledger.fast_copies(block).next()?;
        Some(Victim { block, form, terms: None })
    }

    fn speculate(&mut self, context: &Context, proposals: &mut Vec<Proposal>) {
        let most = room_for(context, self.prefetches);
        if most == 0 {
            return;
        }
        for ahead in 1..=self.ahead.min(context.signals.layers - 1) {
            for &(p, block) in &self.taken[coming(context, ahead).index()] {
                let native = context.model.block(block).native;
                let Some(mut proposal) = prefetch(context, block, native, 0.0, f64::from(p)) else {
                    continue;
                };
                proposal.terms = Terms { saved: f64::from(p) / f64::from(ahead), ..proposal.terms }.sum();
                proposals.push(proposal);
            }
        }
        proposals.sort_by(|a, b| a.terms.total.total_cmp(&b.terms.total).then(a.block.cmp(&b.block)));
        proposals.truncate(most);
    }

    fn step_done(&mut self, _context: &Context, _drift: f64) {
        self.path.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice<const N: usize>(experts: [(u32, f32); N]) -> [Routed; N] {
        experts.map(|(block, p)| Routed { block: BlockId(block), tokens: 1, gate_squared: p * p })
    }

    /// The cosine of two whole paths, against its definition; the path so far decides, not the layers to come.
    #[test]
    fn the_nearest_path_so_far_is_found() {
        let mut path = Path::new(8, 2, 2);
        let tokens = [
            [choice([(0, 0.6), (1, 0.4)]), choice([(4, 0.5), (5, 0.5)])],
            [choice([(2, 0.5), (3, 0.5)]), choice([(4, 0.9), (7, 0.1)])],
        ];
        for token in &tokens {
            for (layer, routed) in (0..).map(LayerId).zip(token) {
                path.follow(layer, routed);
            }
            path.end();
        }
        let (place, score) = path.follow(LayerId(0), &choice([(0, 0.8), (2, 0.2)])).unwrap();
        let cosine = |product: f32, a: f32, b: f32| product / (a * b).sqrt();
        assert_eq!(place, 0);
        assert!((score - cosine(0.48, 0.68, 0.52)).abs() < 1e-6, "{score}");
        let (place, score) = path.follow(LayerId(1), &choice([(4, 1.0)])).unwrap();
        let other = cosine(0.1 + 0.9, 1.68, 0.5 + 0.82);
        assert_eq!(place, if cosine(0.98, 1.68, 1.02) > other { 0 } else { 1 });
        assert!((score - cosine(0.98, 1.68, 1.02).max(other)).abs() < 1e-6, "{score}");
        // A full store gives up the nearest one: the new token takes its place.
        path.end();
        assert_eq!(path.maps.column(4)[place], 1.0);
    }

    #[test]
    fn the_less_alike_the_more_are_taken() {
        let taken = |score| {
            let mut experts: Vec<_> = [0.4, 0.3, 0.2, 0.1].into_iter().zip((0..).map(BlockId)).collect();
            take(&mut experts, score, 2);
            experts.len()
        };
        assert_eq!([1.0, 0.5, 0.05, -1.0].map(taken), [2, 2, 3, 4]);
    }
}
