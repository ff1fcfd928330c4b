//! A generator fitted to a recorded trace: routing of any length that a cache cannot tell from the recording.
//!
//! # The model
//!
//! A token goes through the layers in order. At each it draws `top_k` experts without replacement, expert e of layer l with
//! a probability proportional to `exp(b[l][e] + w . x)`. The offsets `b` carry the popularity. The features `x` are: how
//! popular the expert is in the request (requests have favourites: each generated one has those of a recorded one, in
//! recorded order, so that topics last as long as they did); how long ago the request chose it last, in four classes;
//! and how much likelier it is after the previous token's choice at this layer, and after this token's choices one and
//! two layers before (the memory from token to token and the coupling of layers).
//!
//! # The fit
//!
//! Tables of popularity and of likelihood ratios are counted. The eight weights, one for all layers, and the offsets are set
//! such that what the model generates has the same mean features and the same popularity as the recording: at every
//! step some requests are generated, and each parameter moves by a part of the difference (stochastic approximation, with
//! averaging). The weights that make the recording likeliest token by token are of no use: fed with its own
//! choices, that model narrows down to a few experts.
//!
//! # What it is not
//!
//! All tokens select `top_k` experts, and prompts are not generated. Favourites are taken over from recorded requests, so a
//! generated trace says something of them. It is as good as [`crate::likeness`] measures for the trace at hand; nothing
//! was fitted to hit rates.

mod history;
mod router;
mod tables;

use crate::error::{Problem, TraceError};
use crate::generate::{MOST_PLACES, draw_gates, within};
use crate::routing::{RoutingTrace, TraceInfo};
use history::{FEATURES, History, NAMES};
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Dxsm;
use router::{Moments, Router, Scratch};
use std::ops::Range;
use tables::Tables;

/// Where the weights start: about where those of recorded routing of gpt-oss-20b end.
const START: [f64; FEATURES] = [0.5, 0.5, 0.4, 0.3, 0.1, 1.0, 1.6, 1.4];
/// Steps of the fit; the mean over the last half of them is kept.
const STEPS: usize = 40;
/// Tokens generated in each step, at least.
const STEP_TOKENS: usize = 3_000;
/// How much of a difference in the mean features, in units of their variance, a step takes away.
const RATE: f64 = 0.1;
/// The same for the logarithm of a block's popularity.
const POPULARITY_RATE: f64 = 0.4;
/// The most that a parameter moves in a step.
const LARGEST_STEP: f64 = 0.2;

/// A router fitted to a trace.
pub struct Fitted {
    tables: Tables,
    router: Router,
    lengths: Vec<usize>,
}

impl Fitted {
    /// Fits the decoded tokens of a trace, without the requests marked as repetition unless asked for. An error if
    /// none is left, or if the layers have too many experts for a table of pairs.
    pub fn new(trace: &RoutingTrace, include_repetition: bool) -> Result<Fitted, TraceError> {
        let kept = trace.kept(include_repetition);
        let requests: Vec<Range<usize>> = kept.map(|index| trace.trace(index).rows.clone()).collect();
        if requests.is_empty() {
            return Err(Problem::OnlyRepetition.into());
        }
        let tables = Tables::count(trace, &requests)?;
        let lengths: Vec<usize> = requests.iter().map(ExactSizeIterator::len).collect();
        let router = approximate(trace, &tables, &requests);
        Ok(Fitted { tables, router, lengths })
    }

    /// What the router goes by, and the weight of each.
    pub fn weights(&self) -> impl Iterator<Item = (&'static str, f64)> {
        NAMES.into_iter().zip(self.router.weights)
    }

    /// Tokens of each request of the recording.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The lengths of `traces` requests, by default as many as were recorded, of `tokens` tokens each, by default as many
    /// as the recorded ones in turn.
    pub fn lengths_for(&self, traces: Option<u32>, tokens: Option<u32>) -> Result<Vec<usize>, TraceError> {
        within("traces", traces.unwrap_or(1), 1, (MOST_PLACES / self.tables.shape.places() as u64) as u32)?;
        within("tokens", tokens.unwrap_or(1), 1, u32::MAX)?;
        let count = traces.map_or(self.lengths.len(), |traces| traces as usize);
        let length = |recorded: &usize| tokens.map_or(*recorded, |tokens| tokens as usize);
        Ok(self.lengths.iter().cycle().take(count).map(length).collect())
    }

    /// Generates requests of these many tokens, with drawn gate weights if asked for. The same arguments give the
    /// same trace; requests after the first depend on those before.
    pub fn generate(&self, lengths: &[usize], gates: bool, seed: u64) -> Result<RoutingTrace, TraceError> {
        let shape = self.tables.shape;
        let tokens = lengths.iter().fold(0_usize, |sum, &tokens| sum.saturating_add(tokens));
        let places = (tokens as u64).saturating_mul(shape.places() as u64);
        if places > MOST_PLACES {
            let what = "selected experts";
            return Err(Problem::TooLarge { what, size: places, limit: MOST_PLACES }.into());
        }
        let mut rng = Pcg64Dxsm::new(seed as u128, 0);
        let mut history = History::new(&self.tables);
        let mut scratch = Scratch::default();
        let mut selections = Vec::with_capacity(places as usize);
        let mut traces = Vec::new();
        let mut first = 0;
        for (index, &tokens) in lengths.iter().enumerate() {
            history.begin_request(index % self.tables.requests());
            for _ in 0..tokens {
                let take = |_, _: &_, chosen: &[u16]| selections.extend_from_slice(chosen);
                self.router.next_token(&mut rng, &mut history, &mut scratch, take);
            }
            let (rows, name) = (first..first + tokens, format!("generated {index}"));
            traces.push(TraceInfo { rows, name, ..TraceInfo::default() });
            first += tokens;
        }
        let gates = gates.then(|| draw_gates(seed, shape, tokens));
        RoutingTrace::new(shape, selections, gates, traces)
    }
}

/// The router whose own choices have the moments of the recorded ones. In every step it generates some requests and
/// is compared with the recording of the same ones.
fn approximate(trace: &RoutingTrace, tables: &Tables, requests: &[Range<usize>]) -> Router {
    let offsets = tables.popularity.iter().map(|&share| libm::log(share as f64)).collect();
    let mut router = Router { weights: START, offsets };
    let mut mean = Router { weights: [0.0; FEATURES], offsets: vec![0.0; tables.popularity.len()] };
    let mut rng = Pcg64Dxsm::new(0, 1);
    let mut history = History::new(tables);
    let mut scratch = Scratch::default();
    let mut order: Vec<usize> = (0..tables.requests()).collect();
    order.shuffle(&mut rng);
    let mut order = order.into_iter().cycle();
    for step in 0..STEPS {
        let (mut recorded, mut made) = (Moments::new(tables), Moments::new(tables));
        let mut tokens = 0;
        for request in order.by_ref() {
            history.begin_request(request);
            for row in requests[request].clone() {
                recorded.add_token(trace, row, &mut history, &mut scratch);
            }
            history.begin_request(request);
            for _ in requests[request].clone() {
                let take = |layer, features: &_, chosen: &_| made.add(layer, features, chosen);
                router.next_token(&mut rng, &mut history, &mut scratch, take);
            }
            tokens += requests[request].len();
            if tokens >= STEP_TOKENS {
                break;
            }
        }
        adjust(&mut router, &recorded, &made, tables);
        if step >= STEPS / 2 {
            let share = 1.0 / (STEPS - STEPS / 2) as f64;
            mean.weights.iter_mut().zip(router.weights).for_each(|(mean, weight)| *mean += weight * share);
            mean.offsets.iter_mut().zip(&router.offsets).for_each(|(mean, offset)| *mean += offset * share);
        }
    }
    mean
}

/// Moves every parameter by a part of its difference.
fn adjust(router: &mut Router, recorded: &Moments, made: &Moments, tables: &Tables) {
    let clamp = |step: f64| step.clamp(-LARGEST_STEP, LARGEST_STEP);
    for (feature, weight) in router.weights.iter_mut().enumerate() {
        let difference = recorded.mean(feature) - made.mean(feature);
        *weight += clamp(RATE * difference / recorded.variance(feature));
    }
    for (block, offset) in router.offsets.iter_mut().enumerate() {
        let prior = tables.popularity[block] as f64;
        let difference = libm::log(recorded.share(block, prior)) - libm::log(made.share(block, prior));
        *offset += clamp(POPULARITY_RATE * difference);
    }
}
