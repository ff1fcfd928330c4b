//! Routing made up: seeded, with a popularity skew, a memory from token to token, and one from layer to layer.
//!
//! Each layer has its own random order of popularity. The expert of rank r (from 0) has weight `(r + 1)^-skew`. The
//! places of a selection are filled in this order, always with distinct experts:
//!
//! 1. each expert that the previous token chose at this layer stays with probability `stickiness`;
//! 2. each expert that this token chose at the layer before hands on, with probability `coupling`, its image under the
//!    permutation that pairs equal ranks of the two layers (random, as the two orders are; popularity is kept);
//! 3. draws by weight, without replacement, fill what is left.
//!
//! Experts can specialise in kinds of tokens, as recorded ones do: choices of one token then foretell each other across
//! layers, however far apart. Each kind multiplies the weights by `exp(specialisation * z)`, with z drawn once for each kind
//! and expert from the standard normal distribution. Traces can have favourites among the kinds: a token is of kind k with a
//! probability proportional to `exp(favourites * z)`, with z drawn once for each trace and kind.
//!
//! An expert's place is also its order by gate weight, highest first. Weights are the draws of
//! [`crate::gates::synthetic`] with the row over all traces, and count as synthetic. Trace i is the same however many are
//! generated. A skewed trace flatters frequency rules: never tune on generated routing alone.

use crate::error::{Problem, TraceError};
use crate::gates;
use crate::routing::{GateOrigin, Gates, RoutingTrace, Shape, TraceInfo};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_distr::StandardNormal;
use rand_pcg::Pcg64Dxsm;
use serde::{Deserialize, Serialize};
use std::fmt::Display;

/// What to generate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Routed layers, 1 to 65535.
    pub layers: u32,
    /// Experts of each layer, 1 to 65535.
    pub experts: u32,
    /// Experts a token selects at a layer, 1 to `experts`.
    pub top_k: u32,
    /// Traces (requests), at least 1.
    pub traces: u32,
    /// Tokens of each trace, at least 1.
    pub tokens_per_trace: u32,
    /// Exponent of the popularity: 0 is uniform. 0 to 10.
    pub skew: f64,
    /// Probability that an expert chosen by the previous token is chosen again at the same layer. 0 to 1.
    pub stickiness: f64,
    /// Probability that an expert chosen at the layer before hands on its image. 0 to 1.
    pub coupling: f64,
    /// Kinds of tokens, 1 to 4096.
    pub kinds: u32,
    /// How far apart kinds are in what they choose: the standard deviation of the logarithm of an expert's weight. 0 to 10.
    pub specialisation: f64,
    /// How far apart traces are in the kinds they are made of: the standard deviation of the logarithm of a kind's weight. 0 to
    /// 10.
    pub favourites: f64,
    /// Draw gate weights too.
    pub gates: bool,
    /// Seed of everything.
    pub seed: u64,
    /// Which draws of that seed: another number gives other tokens of the same popularity.
    pub draws: u32,
}

/// The parameters of `sample.hrt`, which ships with this crate (the example `sample` writes it): the shape of
/// gpt-oss-20b, and parameters with which [`crate::info()`] measures what it does on its recorded routing (mmlu_validation): Zipf
/// exponent 0.70 here, 0.67 there; overlap with the previous token 0.43 and 0.44. Recorded requests stay with fewer
/// experts, though: 534 blocks in 64 tokens, 745 here.
pub const SAMPLE: Params = Params {
    layers: 24,
    experts: 32,
    top_k: 4,
    traces: 6,
    tokens_per_trace: 100,
    skew: 0.8,
    stickiness: 0.3,
    coupling: 0.2,
    kinds: 1,
    specialisation: 0.0,
    favourites: 0.0,
    gates: true,
    seed: 20,
    draws: 0,
};

/// The most selected experts that are generated: 2 GiB in memory.
pub(crate) const MOST_PLACES: u64 = 1 << 30;
/// Set in the streams that draw kinds and what they are like.
const KINDS: u128 = 1 << 96;
/// The most kinds, and the most weights of all kinds together: 1 GiB in memory.
const MOST_KINDS: u32 = 4096;
const MOST_WEIGHTS: u64 = 1 << 26;
/// Draws that hit a chosen expert before the rest is weighed exactly.
const PATIENCE: usize = 8;

/// Generates a trace.
pub fn generate(params: &Params) -> Result<RoutingTrace, TraceError> {
    let shape = check(params)?;
    let (orders, of_kind) = (popularity_orders(params), kinds(params));
    let tokens = params.traces as usize * params.tokens_per_trace as usize;
    let mut selections = Vec::with_capacity(tokens * shape.places());
    for trace in 0..params.traces {
        let mut router = Router::new(params, &of_kind, trace);
        for _ in 0..params.tokens_per_trace {
            router.next_token();
            for (layer, ranks) in router.chosen.iter().enumerate() {
                selections.extend(ranks.iter().map(|&rank| orders[layer][rank as usize]));
            }
        }
    }
    let per_trace = params.tokens_per_trace as usize;
    let info = |trace: usize| TraceInfo {
        rows: trace * per_trace..(trace + 1) * per_trace,
        name: format!("generated {trace}"),
        ..TraceInfo::default()
    };
    let traces = (0..params.traces as usize).map(info).collect();
    RoutingTrace::new(shape, selections, params.gates.then(|| draw_gates(params.seed, shape, tokens)), traces)
}

fn check(params: &Params) -> Result<Shape, TraceError> {
    let shape = Shape::new(params.layers, params.experts, params.top_k)?;
    within("skew", params.skew, 0.0, 10.0)?;
    within("stickiness", params.stickiness, 0.0, 1.0)?;
    within("coupling", params.coupling, 0.0, 1.0)?;
    within("kinds", params.kinds, 1, MOST_KINDS)?;
    within("specialisation", params.specialisation, 0.0, 10.0)?;
    within("favourites", params.favourites, 0.0, 10.0)?;
    let weights = params.kinds as u64 * params.layers as u64 * params.experts as u64;
    if weights > MOST_WEIGHTS {
        let what = "weights, one for each kind, layer and expert";
        return Err(Problem::TooLarge { what, size: weights, limit: MOST_WEIGHTS }.into());
    }
    within("traces", params.traces, 1, u32::MAX)?;
    within("tokens_per_trace", params.tokens_per_trace, 1, u32::MAX)?;
    let places = params.traces as u64 * params.tokens_per_trace as u64;
    let places = places.saturating_mul(shape.places() as u64);
    if places > MOST_PLACES {
        return Err(Problem::TooLarge { what: "selected experts", size: places, limit: MOST_PLACES }.into());
    }
    Ok(shape)
}

pub(crate) fn within<T: PartialOrd + Display>(
    name: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<(), Problem> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(Problem::Parameter { name, value: value.to_string(), expected: format!("{least} to {most}") })
}

/// For each layer the experts by rank. Stream 0 of the seed; the traces have the streams from 1.
fn popularity_orders(params: &Params) -> Vec<Vec<u16>> {
    let mut rng = Pcg64Dxsm::new(params.seed as u128, 0);
    let shuffled = |_| {
        let mut order: Vec<u16> = (0..params.experts as u16).collect();
        order.shuffle(&mut rng);
        order
    };
    (0..params.layers).map(shuffled).collect()
}

pub(crate) fn draw_gates(seed: u64, shape: Shape, tokens: usize) -> Gates {
    let mut weights = vec![0.0; tokens * shape.places()];
    let layers = shape.layers as usize;
    for (index, slots) in weights.chunks_exact_mut(shape.top_k as usize).enumerate() {
        gates::synthetic(seed, (index / layers) as u64, (index % layers) as u32, slots);
    }
    Gates { weights, origin: GateOrigin::Synthetic }
}

/// Weights to draw by.
struct Weights {
    each: Vec<f64>,
    cumulative: Vec<f64>,
}

impl Weights {
    fn new(each: Vec<f64>) -> Weights {
        let running = |sum: &mut f64, &weight: &f64| {
            *sum += weight;
            Some(*sum)
        };
        Weights { cumulative: each.iter().scan(0.0, running).collect(), each }
    }

    fn draw(&self, rng: &mut Pcg64Dxsm) -> usize {
        let last = self.each.len() - 1;
        let point = rng.random::<f64>() * self.cumulative[last];
        self.cumulative.partition_point(|&sum| sum <= point).min(last)
    }
}

/// Weights that are apart by `spread`: the standard deviation of their logarithms.
fn apart(from: impl Iterator<Item = f64>, spread: f64, rng: &mut Pcg64Dxsm) -> Weights {
    let apart = |weight: f64| {
        let z: f64 = rng.sample(StandardNormal);
        weight * libm::exp(spread * z)
    };
    Weights::new(from.map(apart).collect())
}

/// For each kind and each layer in it, what a token of that kind chooses by rank.
fn kinds(params: &Params) -> Vec<Weights> {
    let mut rng = Pcg64Dxsm::new(params.seed as u128, KINDS);
    let by_rank = || (1..=params.experts).map(|rank| libm::pow(rank as f64, -params.skew));
    let places = 0..params.kinds as usize * params.layers as usize;
    places.map(|_| apart(by_rank(), params.specialisation, &mut rng)).collect()
}

/// One trace's chain of selections. It works on popularity ranks: the experts of a layer are these in its own order.
struct Router<'a> {
    params: &'a Params,
    /// See [`kinds`].
    of_kind: &'a [Weights],
    rng: Pcg64Dxsm,
    /// The kinds that the trace is made of, and the draws of them.
    kinds: Weights,
    kinds_rng: Pcg64Dxsm,
    /// The ranks chosen at each layer, last token; empty before the first.
    chosen: Vec<Vec<u16>>,
    taken: Vec<bool>,
}

impl<'a> Router<'a> {
    fn new(params: &'a Params, of_kind: &'a [Weights], trace: u32) -> Router<'a> {
        let (seed, stream) = (params.seed as u128, ((params.draws as u128) << 32) + trace as u128 + 1);
        let mut kinds_rng = Pcg64Dxsm::new(seed, stream | KINDS);
        let alike = std::iter::repeat_n(1.0, params.kinds as usize);
        Router {
            of_kind,
            rng: Pcg64Dxsm::new(seed, stream),
            kinds: apart(alike, params.favourites, &mut kinds_rng),
            kinds_rng,
            chosen: vec![Vec::new(); params.layers as usize],
            taken: vec![false; params.experts as usize],
            params,
        }
    }

    fn next_token(&mut self) {
        let mut above: Vec<u16> = Vec::new();
        let kind = self.kinds.draw(&mut self.kinds_rng);
        let layers = self.chosen.len();
        let of_kind = &self.of_kind[kind * layers..][..layers];
        for (layer, weights) in of_kind.iter().enumerate() {
            let mut ranks = std::mem::take(&mut self.chosen[layer]);
            ranks.retain(|_| self.rng.random_bool(self.params.stickiness));
            ranks.iter().for_each(|&rank| self.taken[rank as usize] = true);
            for &image in &above {
                if ranks.len() < self.params.top_k as usize && self.rng.random_bool(self.params.coupling) {
                    self.take(image, &mut ranks);
                }
            }
            while ranks.len() < self.params.top_k as usize {
                let rank = self.draw(weights);
                self.take(rank, &mut ranks);
            }
            ranks.iter().for_each(|&rank| self.taken[rank as usize] = false);
            above.clone_from(&ranks);
            self.chosen[layer] = ranks;
        }
    }

    fn take(&mut self, rank: u16, ranks: &mut Vec<u16>) {
        if !std::mem::replace(&mut self.taken[rank as usize], true) {
            ranks.push(rank);
        }
    }

    /// A rank that is not taken, by weight. Repeating draws that hit a taken one is the same distribution as
    /// weighing the rest, and faster while the rest is heavy.
    fn draw(&mut self, weights: &Weights) -> u16 {
        for _ in 0..PATIENCE {
            let rank = weights.draw(&mut self.rng);
            if !self.taken[rank] {
                return rank as u16;
            }
        }
        let free = || (0..weights.each.len()).filter(|&rank| !self.taken[rank]);
        let mut point = self.rng.random::<f64>() * free().map(|rank| weights.each[rank]).sum::<f64>();
        let mut lowest = 0;
        for rank in free() {
            lowest = rank;
            point -= weights.each[rank];
            if point < 0.0 {
                break;
            }
        }
        lowest as u16
    }
}
