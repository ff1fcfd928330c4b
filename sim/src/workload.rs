//! The load: which requests come when, and which blocks their tokens need.

use policy::event::{EventKind, Routed, Slice};
use policy::{BlockId, LayerId, Model, Time};
use rand::RngExt;
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
    /// The rows of the routing that a step follows.
    rows: Vec<usize>,
    /// For each number of layers ahead, the share of the blocks foreseen that are chosen.
    lookahead: Vec<f64>,
}

/// Stream of the arrival process, apart from those of routing and gates.
const ARRIVAL_STREAM: u64 = 0x6172_7269_7661_6c73;
/// Stream of what look-ahead gets wrong.
const LOOKAHEAD_STREAM: u64 = 0x6c6f_6f6b_6168_6561;
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
            &Needs::Dense { requests, tokens } => {
                // No more than the limit lets begin.
                let most = limit.map_or(u64::MAX, |limit| limit.div_ceil(u64::from(tokens.max(1))));
                vec![(prompt, tokens); u64::from(requests).min(most) as usize]
            }
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
                let tokens = tokens as u32;
                // Positions are counted in 32 bits, whatever a trace says of its prompts.
                requests.push(Request { at: None, context: context.min(u32::MAX - tokens), tokens });
            }
        }
        schedule(&mut requests, arrivals, seed);
        let mut routed = 0..;
        let routers =
            model.layers.iter().map(|layer| if model.is_routed(layer) { routed.next() } else { None });
        let routers = routers.collect();
        Workload {
            needs,
            routers,
            model,
            requests,
            rows_before,
            seed,
            rows: Vec::new(),
            lookahead: Vec::new(),
        }
    }

    /// The same, with routers asked ahead of time: see [`Workload::foresee`].
    pub fn foreseen(self, lookahead: &[f64]) -> Workload {
        Workload { lookahead: lookahead.to_vec(), ..self }
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

    /// What the tokens of a step need at a layer: what its router chose, or all of its blocks where it has none.
    pub fn route(&mut self, slices: &[Slice], layer: LayerId) -> Vec<Routed> {
        let data = self.model.layer(layer);
        let Some(router) = self.routers[layer.index()] else {
            let tokens = slices.iter().map(|slice| slice.tokens).sum();
            let blocks = (data.first_block.0..data.first_block.0 + data.blocks).map(BlockId);
            return blocks.map(|block| Routed { block, tokens, gate_squared: tokens as f32 }).collect();
        };
        let first_block = data.first_block.0;
        self.rows.clear();
        for slice in slices {
            self.follow(slice);
        }
        let mut routed = Vec::new();
        if let Needs::Routed(source) = &mut self.needs {
            source.merge_rows(self.rows.iter().copied(), router, &mut routed);
            // The trace numbers blocks as if all layers had a router.
            let before = router as u32 * source.shape().experts;
            routed.iter_mut().for_each(|block| block.block.0 += first_block - before);
        }
        routed
    }

    /// What the platform expects of the coming layers while the mixer of `layer` is done, nearest first. Of the blocks that
    /// the layer will choose, each is foreseen with the stated probability, else another of its blocks is in its place. As
    /// with real look-ahead gates, nothing is foreseen beyond the running token.
    pub fn foresee(&mut self, slices: &[Slice], layer: LayerId) -> Vec<EventKind> {
        let mut events = Vec::new();
        for ahead in 0..self.lookahead.len() {
            let coming = LayerId(layer.0.saturating_add(ahead as u16 + 1));
            if coming.index() >= self.model.layers.len() {
                break;
            }
            if self.routers[coming.index()].is_none() {
                continue;
            }
            let mut routed = self.route(slices, coming);
            let position =
                slices.first().map_or(0, |slice| u64::from(slice.request.0) << 32 | u64::from(slice.cached));
            let stream = u128::from(self.seed ^ LOOKAHEAD_STREAM) << 64
                | u128::from(
                    (position ^ (u64::from(layer.0) << 8 | ahead as u64) << 20).wrapping_mul(SPREAD),
                );
            self.blur(&mut routed, coming, self.lookahead[ahead], &mut Pcg64Mcg::new(stream));
            events.push(EventKind::Foreseen { layer: coming, routed });
        }
        events
    }

    /// Replaces each block, unless it is among the share that is foreseen, by one that is not chosen.
    fn blur(&self, routed: &mut [Routed], layer: LayerId, accuracy: f64, random: &mut Pcg64Mcg) {
        let data = self.model.layer(layer);
        let mut taken: Vec<bool> = vec![false; data.blocks as usize];
        let place = |block: BlockId| (block.0 - data.first_block.0) as usize;
        routed.iter().for_each(|expert| taken[place(expert.block)] = true);
        for expert in routed {
            let free = taken.iter().filter(|taken| !**taken).count();
            if random.random::<f64>() < accuracy || free == 0 {
                continue;
            }
            let nth = random.random_range(0..free);
            let other = (0..taken.len()).filter(|&other| !taken[other]).nth(nth);
            if let Some(other) = other {
                taken[other] = true;
                expert.block = BlockId(data.first_block.0 + other as u32);
            }
        }
    }

    /// Notes which rows of the routing a slice's tokens follow. A decoded token has its own. A prompt's tokens have theirs
    /// as far as they are recorded; the others follow consecutive decoded tokens from a place of their own.
    fn follow(&mut self, slice: &Slice) {
        let Needs::Routed(source) = &self.needs else { return };
        let request = slice.request.index();
        let context = self.requests[request].context;
        let decoded = slice.cached.saturating_sub(context);
        if slice.cached >= context {
            self.rows.push(source.row(request, decoded as usize));
            return;
        }
        let recorded = source.prompt_rows(request);
        let unrecorded = context as usize - recorded.len().min(context as usize);
        for token in slice.cached as usize..(slice.cached + slice.tokens) as usize {
            match token.checked_sub(unrecorded) {
                Some(place) => self.rows.push(recorded.start + place),
                None => {
                    let row = self.stand_in(source, request, token as u64);
                    self.rows.push(row);
                }
            }
        }
    }

    /// The row that an unrecorded prompt token follows.
    fn stand_in(&self, source: &BatchSource, request: usize, token: u64) -> usize {
        let last = self.rows_before.len() - 1;
        let rows = self.rows_before[last] + source.tokens(last) as u64;
        let begins = (self.seed ^ (request as u64 + 1)).wrapping_mul(SPREAD) % rows;
        let row = (begins + token) % rows;
        let stand_in = self.rows_before.partition_point(|&before| before <= row) - 1;
        source.row(stand_in, (row - self.rows_before[stand_in]) as usize)
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
