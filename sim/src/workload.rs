//! The load: which requests come when, and which blocks their tokens need.

use policy::event::{Routed, Slice};
use policy::{BlockId, LayerId, Model, Time};
use rand_distr::{Distribution, Exp};
use rand_pcg::Pcg64Mcg;
use std::sync::Arc;
use traces::{BatchSource, GateOrigin};

/// When requests come in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// A fixed number of clients, each sending its next request when the last one is finished.
    Closed {
        /// Clients.
        clients: u32,
    },
    /// A Poisson process.
    Poisson {
        /// Requests a second.
        rate: f64,
    },
}

/// One request of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it comes in; `None` if it waits for another to finish.
    pub at: Option<Time>,
    /// Tokens of its prompt.
    pub context: u32,
    /// Tokens to put out.
    pub tokens: u32,
}

/// Which blocks tokens need.
#[derive(Clone, Debug)]
pub enum Needs {
    /// The experts that a router chose, one trace a request.
    Routed(BatchSource),
    /// Every block of every layer: the model has no router. This many requests of so many tokens each.
    Dense {
        /// Requests.
        requests: u32,
        /// Tokens each puts out.
        tokens: u32,
    },
}

/// The requests of a run.
#[derive(Debug)]
pub struct Workload {
    needs: Needs,
    model: Arc<Model>,
    /// For each layer of the model, its place among those with a router.
    routers: Vec<Option<usize>>,
    requests: Vec<Request>,
    /// Decoded rows before each request, all of them in the end: where stand-ins for prompts are looked up.
    rows_before: Vec<u64>,
    seed: u64,
    members: Vec<(usize, usize)>,
}

/// Stream of the arrival process, apart from those of routing and gates.
const ARRIVAL_STREAM: u64 = 0x6172_7269_7661_6c73;
/// An odd number with well-mixed bits: spreads the places where prompts begin.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Workload {
    /// The requests of a run. `prompt` is the length of prompts that are not recorded. At most `limit` tokens are put
    /// out over all requests, if it is set: later requests are cut or left out.
    pub fn new(
        needs: Needs,
        model: Arc<Model>,
        prompt: u32,
        arrivals: Arrivals,
        limit: Option<u64>,
        seed: u64,
    ) -> Workload {
        let all: Vec<(u32, u32)> = match &needs {
            Needs::Routed(source) => (0..source.requests())
                .map(|index| {
                    (source.request(index).prompt_tokens.unwrap_or(prompt), source.tokens(index) as u32)
                })
                .collect(),
            &Needs::Dense { requests, tokens } => vec![(prompt, tokens); requests as usize],
        };
        let rows_before = all.iter().scan(0, |sum, &(_, tokens)| {
            let before = *sum;
            *sum += u64::from(tokens);
            Some(before)
        });
        let rows_before = rows_before.collect();
        let mut left = limit.unwrap_or(u64::MAX);
        let mut requests = Vec::new();
        for (context, tokens) in all {
            let tokens = u64::from(tokens).min(left);
            if tokens > 0 {
                left -= tokens;
                requests.push(Request { at: None, context, tokens: tokens as u32 });
            }
        }
        schedule(&mut requests, arrivals, seed);
        let mut routed = 0..;
        let routers = model.layers.iter().map(|layer| if layer.blocks > 0 { routed.next() } else { None });
        let routers = routers.collect();
        Workload { needs, routers, model, requests, rows_before, seed, members: Vec::new() }
    }

    /// The requests, in order of arrival.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Where the gate weights come from.
    pub fn gates(&self) -> &'static str {
        match &self.needs {
            Needs::Dense { .. } => "none",
            Needs::Routed(source) => match source.gate_origin() {
                GateOrigin::Trace => "trace",
                GateOrigin::Synthetic => "synthetic",
            },
        }
    }

    /// What the tokens of a step need at a layer: nothing where the layer has no managed blocks.
    pub fn route(&mut self, slices: &[Slice], layer: LayerId) -> Vec<Routed> {
        let Some(router) = self.routers[layer.index()] else { return Vec::new() };
        self.members.clear();
        for slice in slices {
            self.follow(slice);
        }
        match &mut self.needs {
            Needs::Dense { .. } => {
                let tokens = slices.iter().map(|slice| slice.tokens).sum();
                let layer = self.model.layer(layer);
                let blocks = (layer.first_block.0..layer.first_block.0 + layer.blocks).map(BlockId);
                blocks.map(|block| Routed { block, tokens, gate_squared: tokens as f32 }).collect()
            }
            Needs::Routed(source) => {
                let mut routed = Vec::new();
                source.merge(&self.members, router, &mut routed);
                routed
            }
        }
    }

    /// Notes where the routing of a slice's tokens stands: decoded tokens in their request's trace. Prompts are not
    /// recorded; each follows consecutive decoded tokens from a place of its own in all of the routing.
    fn follow(&mut self, slice: &Slice) {
        let Needs::Routed(source) = &self.needs else { return };
        let request = slice.request.index();
        let context = self.requests[request].context;
        if slice.cached >= context {
            self.members.push((request, (slice.cached - context) as usize));
            return;
        }
        let last = self.rows_before.len() - 1;
        let rows = self.rows_before[last] + source.tokens(last) as u64;
        let begins = (self.seed ^ (request as u64 + 1)).wrapping_mul(SPREAD) % rows;
        let mut row = (begins + u64::from(slice.cached)) % rows;
        let mut stand_in = self.rows_before.partition_point(|&before| before <= row) - 1;
        for _ in 0..slice.tokens {
            while row >= self.rows_before[stand_in] + source.tokens(stand_in) as u64 {
                stand_in = (stand_in + 1) % self.rows_before.len();
                row %= rows;
            }
            self.members.push((stand_in, (row - self.rows_before[stand_in]) as usize));
            row += 1;
        }
    }
}

fn schedule(requests: &mut [Request], arrivals: Arrivals, seed: u64) {
    match arrivals {
        Arrivals::Closed { clients } => {
            for request in requests.iter_mut().take(clients as usize) {
                request.at = Some(Time(0));
            }
        }
        Arrivals::Poisson { rate } => {
            let mut random = Pcg64Mcg::new(u128::from(seed) << 64 | u128::from(ARRIVAL_STREAM));
            let Ok(gap) = Exp::new(rate) else { return };
            let mut at = 0.0;
            for request in requests {
                let seconds: f64 = gap.sample(&mut random);
                at += seconds * 1e9;
                request.at = Some(Time(at as u64));
            }
        }
    }
}
