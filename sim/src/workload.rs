//! The load: which requests come when, and which blocks their tokens need.

mod replicas;

use crate::arrivals::{self, ThinkTimes, outputs, prompts};
use policy::event::{EventKind, Routed, Slice};
use policy::model::Block;
use policy::parallel::ExpertShare;
use policy::replicas::{Balance, Replicas};
use policy::{BlockId, LayerId, Model, RequestId, TierId, Time};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use scenarios::Length;
use std::ops::Range;
use std::sync::Arc;
use traces::requests::RequestTrace;
use traces::{BatchSource, GateOrigin};

pub use crate::arrivals::Arrivals;

/// One request of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it comes in; `None` if it waits for another to finish.
    pub at: Option<Time>,
    /// Tokens of its prompt.
    pub context: u32,
    /// Tokens to put out.
    pub tokens: u32,
    /// The model that it is for, where several share the machine.
    pub tenant: u16,
}

/// Which blocks tokens need.
#[derive(Clone, Debug)]
pub enum Needs {
    /// The experts that a router chose, one trace a request.
    Routed(Box<BatchSource>),
    /// Every block of every layer: the model has no router. This many requests of so many tokens each.
    Dense {
        /// Requests.
        requests: u32,
        /// Tokens each puts out.
        tokens: u32,
    },
}

/// Which requests come, beside what their tokens need.
#[derive(Clone, Debug)]
pub struct Plan {
    /// When they come in.
    pub arrivals: Arrivals,
    /// The length of prompts that are not recorded.
    pub prompt: Length,
    /// The length of outputs. Left out, each request is one of the routing's, unless requests are recorded.
    pub output: Option<Length>,
    /// The most requests.
    pub limit: Option<u32>,
    /// The most tokens put out over all requests: later ones are cut or left out.
    pub limit_tokens: Option<u64>,
}

impl Plan {
    /// Whether requests are others than those of the routing, and follow its rows from places of their own.
    pub fn stands_in(&self) -> bool {
        self.output.is_some() || matches!(self.arrivals, Arrivals::Recorded(_))
    }
}

/// The requests of a run.
#[derive(Debug)]
pub struct Workload {
    needs: Needs,
    model: Arc<Model>,
    /// For each layer of the model, its place among those with a router.
    routers: Vec<Option<usize>>,
    /// For each block, its share of its layer's weights.
    weight: Vec<f32>,
    requests: Vec<Request>,
    /// What else is recorded of them.
    recorded: Option<Arc<RequestTrace>>,
    /// For each tenant.
    think: Vec<ThinkTimes>,
    /// The requests of each tenant, by number.
    tenants: Vec<Range<usize>>,
    /// Whether requests are others than those of the routing.
    stands_in: bool,
    /// Decoded rows before each trace of the routing: where stand-ins are looked up.
    rows_before: Vec<u64>,
    seed: u64,
    /// The step that was routed last.
    followed: Vec<Slice>,
    /// The rows of the routing that a step follows. Empty between uses; kept for its memory.
    rows: Vec<Range<usize>>,
    /// For each number of layers ahead, the share of the blocks foreseen that are chosen.
    lookahead: Vec<f64>,
    /// Which experts of each layer there are here.
    share: ExpertShare,
    /// For each share of the experts, the tokens that go there at the layer that was routed last, and that would without
    /// replicas.
    gone: Vec<u64>,
    gone_without: Vec<u64>,
    /// What each of them was given to do there.
    shares: Vec<Vec<Routed>>,
    replicas: Replicas,
    balance: Balance,
}

/// Stream of what look-ahead gets wrong.
const LOOKAHEAD_STREAM: u64 = 0x6c6f_6f6b_6168_6561;
/// An odd number with well-mixed bits: spreads the places where prompts begin.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Workload {
    /// The requests of a run.
    pub fn new(needs: Needs, model: Arc<Model>, plan: &Plan, seed: u64) -> Workload {
        let tokens = |index| match &needs {
            Needs::Routed(source) => source.tokens(index) as u64,
            Needs::Dense { .. } => 0,
        };
        let traces = match &needs {
            Needs::Routed(source) => source.requests(),
            Needs::Dense { .. } => 0,
        };
        let rows_before = (0..traces).scan(0, |sum, index| {
            let before = *sum;
            *sum += tokens(index);
            Some(before)
        });
        let (weight, requests) = (weights(&model), requests(&needs, plan, seed));
        let mut routed = 0..;
        let routers =
            model.layers.iter().map(|layer| if model.is_routed(layer) { routed.next() } else { None });
        Workload {
            rows_before: rows_before.collect(),
            routers: routers.collect(),
            weight,
            tenants: std::iter::once(0..requests.len()).collect(),
            requests,
            recorded: match &plan.arrivals {
                Arrivals::Recorded(trace) => Some(trace.clone()),
                _ => None,
            },
            think: vec![ThinkTimes::new(&plan.arrivals, seed)],
            stands_in: plan.stands_in(),
            needs,
            model,
            seed,
            followed: Vec::new(),
            rows: Vec::new(),
            lookahead: Vec::new(),
            share: ExpertShare::default(),
            gone: Vec::new(),
            gone_without: Vec::new(),
            shares: Vec::new(),
            replicas: Replicas::default(),
            balance: Balance::default(),
        }
    }

    /// The same for one of several accelerators that have experts of their own.
    pub fn shared(self, share: ExpertShare, fast: TierId) -> Workload {
        let layers = self.model.routed_layers().map(|layer| layer.first_block);
        let experts = self.model.routed_layers().next().map_or(0, |layer| layer.blocks);
        let known = (self.model.blocks.len(), fast);
        let replicas = Replicas::new(layers, experts * share.cut(), share, known);
        let gone = vec![0; share.of as usize];
        let shares = vec![Vec::new(); share.of as usize];
        Workload { share, gone_without: gone.clone(), gone, shares, replicas, ..self }
    }

    /// The same, with the requests of another model on the machine, which has no router.
    pub fn beside(mut self, needs: &Needs, plan: &Plan) -> Workload {
        let tenant = self.tenants.len() as u16;
        let seed = self.seed ^ u64::from(tenant).wrapping_mul(SPREAD);
        let first = self.requests.len();
        self.requests
            .extend(requests(needs, plan, seed).into_iter().map(|request| Request { tenant, ..request }));
        self.tenants.push(first..self.requests.len());
        self.think.push(ThinkTimes::new(&plan.arrivals, seed));
        self
    }

    /// The requests of each model, by number.
    pub fn tenants(&self) -> &[Range<usize>] {
        &self.tenants
    }

    /// The same for a stage of a pipeline: so many layers of the stages before have a router.
    pub fn staged(mut self, routers_before: usize) -> Workload {
        self.routers.iter_mut().flatten().for_each(|router| *router += routers_before);
        self
    }

    /// The same, with routers asked ahead of time: see [`Workload::foresee`].
    pub fn foreseen(self, lookahead: &[f64]) -> Workload {
        Workload { lookahead: lookahead.to_vec(), ..self }
    }

    /// Whether routers are asked ahead of time.
    pub fn foresees(&self) -> bool {
        !self.lookahead.is_empty()
    }

    /// The requests, in order of arrival.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// A request as it comes in.
    pub fn arrival(&self, request: RequestId) -> EventKind {
        let Request { context, tokens, tenant, .. } = self.requests[request.index()];
        let recorded = self.recorded.as_ref().filter(|_| tenant == 0);
        EventKind::RequestArrived {
            request,
            context_tokens: context,
            output_tokens: tokens,
            priority: recorded.map_or(0, |trace| trace.priority(request.index())),
            prefix: recorded.map_or_else(Default::default, |trace| trace.prefix(request.index()).into()),
            tenant,
        }
    }

    /// When a client whose request is finished now sends the request with this index; `None` if there is none, or it comes
    /// at a time of its own.
    pub fn sent_after(&mut self, index: usize, now: Time) -> Option<Time> {
        let request = self.requests.get(index).filter(|request| request.at.is_none())?;
        Some(now + self.think[usize::from(request.tenant)].next())
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
            let all = slices.iter().map(|slice| slice.tokens).sum();
            let rows = |place: u32| data.rows.get(place as usize).map(|rows| rows * slices.len() as u32);
            let routed = |place| {
                let block = BlockId(data.first_block.0 + place);
                // An error in what few rows go through reaches every token all the same.
                let gate_squared = all as f32 * self.weight[block.index()];
                Routed { block, tokens: rows(place).unwrap_or(all), gate_squared }
            };
            return (0..data.blocks).map(routed).collect();
        };
        let (first_block, each) = (data.first_block.0, data.blocks);
        if self.followed != slices {
            self.rows.clear();
            slices.iter().for_each(|slice| self.follow(slice));
            self.followed.clear();
            self.followed.extend_from_slice(slices);
            if let Needs::Routed(source) = &mut self.needs {
                source.step(self.rows.drain(..));
            }
        }
        let Needs::Routed(source) = &self.needs else { return Vec::new() };
        if !self.share.is_part() {
            return source.demand(router, first_block);
        }
        let mut routed = source.demand(router, 0);
        let own = self.share.experts(each * self.share.cut() / self.share.of);
        let before = if self.share.cut() > 1 { own.start } else { 0 };
        let (replicas, rank) = (&self.replicas, self.share.rank);
        routed.retain_mut(|expert| {
            let number = expert.block.0;
            let parts = replicas.parts(router, number, expert.tokens);
            let part = parts.filter(|part| part.0 == rank).map(|part| part.1).sum();
            *expert = part_of(expert, part);
            expert.block.0 = (number + first_block).wrapping_sub(before);
            part > 0
        });
        routed
    }

    /// What [`Workload::route`] gives at a layer with a router to each of the accelerators that have shares of the experts, in
    /// their order. It is needed now: it counts for replicas, and for how evenly tokens go.
    pub fn route_shares(&mut self, slices: &[Slice], layer: LayerId) -> &mut [Vec<Routed>] {
        let own = std::mem::take(&mut self.share);
        let routed = self.route(slices, layer);
        self.share = own;
        let data = self.model.layer(layer);
        let (first_block, each) = (data.first_block.0, (data.blocks * own.cut() / own.of).max(1));
        let router = self.routers[layer.index()].unwrap_or_default();
        self.shares.iter_mut().for_each(Vec::clear);
        self.gone.fill(0);
        self.gone_without.fill(0);
        for expert in &routed {
            let number = expert.block.0 - first_block;
            self.gone_without[(number / each) as usize] += u64::from(expert.tokens);
            for (rank, part) in self.replicas.parts(router, number, expert.tokens).filter(|part| part.1 > 0) {
                self.gone[rank as usize] += u64::from(part);
                let mut share = part_of(expert, part);
                share.block.0 = first_block + if own.cut() > 1 { number % each } else { number };
                self.shares[rank as usize].push(share);
            }
        }
        self.replicas.observe(router, first_block, &routed);
        let most = |gone: &[u64]| gone.iter().copied().max().unwrap_or(0);
        self.balance.tokens += self.gone.iter().sum::<u64>();
        self.balance.most += most(&self.gone);
        self.balance.most_without += most(&self.gone_without);
        &mut self.shares
    }

    /// How evenly tokens went to the accelerators that have experts of their own.
    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// The tokens that go to the accelerator to which the most go, at the layer that was routed last; each counts once for
    /// each of its experts there.
    pub fn most_gone(&self) -> u64 {
        self.gone.iter().copied().max().unwrap_or(0)
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

    /// Notes which rows of the routing a slice's tokens follow. Where a request is one of the routing's, a decoded token has
    /// its own row, and a prompt's tokens have theirs as far as they are recorded. All others follow consecutive decoded
    /// tokens from a place of their own.
    fn follow(&mut self, slice: &Slice) {
        let Needs::Routed(source) = &self.needs else { return };
        let request = slice.request.index();
        let context = self.requests[request].context;
        let end = slice.cached + slice.tokens;
        if self.stands_in {
            self.stand_in(request, slice.cached..end);
            return;
        }
        let prompt = slice.cached.min(context)..end.min(context);
        let recorded = source.prompt_rows(request);
        let unrecorded = context - (recorded.len() as u32).min(context);
        let known = prompt.start.max(unrecorded)..prompt.end.max(unrecorded);
        let from = |first: usize, tokens: Range<u32>| first..first + tokens.len();
        let known = from(recorded.start + (known.start - unrecorded) as usize, known);
        // A request that was pre-empted computes anew what it had put out.
        let decoded = slice.cached.max(context)..end.max(context);
        let row = |token: u32| source.row(request, (token - context) as usize);
        let decoded = if decoded.is_empty() { 0..0 } else { from(row(decoded.start), decoded) };
        self.stand_in(request, prompt.start.min(unrecorded)..prompt.end.min(unrecorded));
        self.rows.extend([known, decoded].into_iter().filter(|rows| !rows.is_empty()));
    }

    /// Notes the rows that tokens of a request follow which has none of its own there.
    fn stand_in(&mut self, request: usize, tokens: Range<u32>) {
        let Needs::Routed(source) = &self.needs else { return };
        let Some(&before_last) = self.rows_before.last() else { return };
        let last = self.rows_before.len() - 1;
        let rows = before_last + source.tokens(last) as u64;
        let begins = (self.seed ^ (request as u64 + 1)).wrapping_mul(SPREAD) % rows;
        let mut row = (begins + u64::from(tokens.start)) % rows;
        let mut left = tokens.len();
        while left > 0 {
            let trace = self.rows_before.partition_point(|&before| before <= row) - 1;
            let first = (row - self.rows_before[trace]) as usize;
            let run = left.min(source.tokens(trace) - first);
            let row_in_file = source.row(trace, first);
            self.rows.push(row_in_file..row_in_file + run);
            row = (row + run as u64) % rows;
            left -= run;
        }
    }
}

/// So many of an expert's tokens, with as large a part of their squared weights.
fn part_of(expert: &Routed, part: u32) -> Routed {
    let gate_squared = expert.gate_squared * (part as f32 / expert.tokens.max(1) as f32);
    Routed { tokens: part, gate_squared, ..*expert }
}

/// For each block, its share of its layer's weights: what its error weighs in that of a layer which reads all of them.
fn weights(model: &Model) -> Vec<f32> {
    let mut of_layer = vec![0; model.layers.len()];
    for block in &model.blocks {
        of_layer[block.layer.index()] += block.elements();
    }
    let share = |block: &Block| block.elements() as f32 / of_layer[block.layer.index()].max(1) as f32;
    model.blocks.iter().map(share).collect()
}

/// The requests, in order of arrival, within the plan's limits.
fn requests(needs: &Needs, plan: &Plan, seed: u64) -> Vec<Request> {
    let limit = plan.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut prompt = prompts(plan.prompt, seed);
    let mut output = plan.output.map(|length| outputs(length, seed));
    let mut left = plan.limit_tokens.unwrap_or(u64::MAX);
    // Positions are counted in 32 bits, whatever a trace says of its prompts.
    let mut cut = move |at: Option<Time>, context: u32, tokens: u32| {
        let tokens = u64::from(tokens).min(left) as u32;
        left -= u64::from(tokens);
        let context = context.min(u32::MAX - tokens);
        Some(Request { at, context, tokens, tenant: 0 }).filter(|_| tokens > 0)
    };
    if let Arrivals::Recorded(trace) = &plan.arrivals {
        let recorded = trace.requests().iter().take(limit);
        return recorded
            .map_while(|request| cut(Some(request.at), request.prompt_tokens, request.output_tokens))
            .collect();
    }
    let own = match needs {
        Needs::Routed(source) => source.requests(),
        Needs::Dense { requests, .. } => *requests as usize,
    };
    // A model without a router serves any number of requests, routing only as many as there are, if they are its own.
    let count = match needs {
        Needs::Routed(_) if output.is_none() => own.min(limit),
        _ => plan.limit.map_or(own, |limit| limit as usize),
    };
    let mut times: Box<dyn Iterator<Item = Option<Time>>> = match plan.arrivals {
        Arrivals::Drawn(process) => Box::new(arrivals::arrivals(process, seed).map(Some)),
        Arrivals::Closed { clients, .. } => {
            let first = std::iter::repeat_n(Some(Time(0)), clients as usize);
            Box::new(first.chain(std::iter::repeat(None)))
        }
        Arrivals::Recorded(_) => Box::new(std::iter::empty()),
    };
    let each = |index: usize| {
        let (recorded, own) = match needs {
            Needs::Routed(_) if output.is_some() => (None, 0),
            Needs::Routed(source) => (source.request(index).prompt_tokens, source.tokens(index) as u32),
            Needs::Dense { tokens, .. } => (None, *tokens),
        };
        let drawn = prompt.next().unwrap_or(0);
        let tokens = output.as_mut().and_then(Iterator::next).unwrap_or(own);
        cut(times.next().flatten(), recorded.unwrap_or(drawn), tokens)
    };
    (0..count).map_while(each).collect()
}
