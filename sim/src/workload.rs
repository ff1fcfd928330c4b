//! The load: which requests come when, and which experts their tokens choose.

use policy::event::Routed;
use policy::{LayerId, RequestId, Time};
use rand_distr::{Distribution, Exp};
use rand_pcg::Pcg64Mcg;
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
    /// Tokens in its cache when decoding begins.
    pub context: u32,
    /// Tokens to decode.
    pub tokens: u32,
}

/// The requests of a run, each one trace of the routing, decoded token by token.
#[derive(Debug)]
pub struct Workload {
    source: BatchSource,
    requests: Vec<Request>,
    members: Vec<(usize, usize)>,
}

/// Stream of the arrival process, apart from those of routing and gates.
const ARRIVAL_STREAM: u64 = 0x6172_7269_7661_6c73;

impl Workload {
    /// One request a trace. At most `limit` tokens are decoded over all requests of one client's turn, if it is set:
    /// later requests are cut or left out.
    pub fn new(source: BatchSource, arrivals: Arrivals, limit: Option<u64>, seed: u64) -> Workload {
        let mut left = limit.unwrap_or(u64::MAX);
        let mut requests = Vec::new();
        for index in 0..source.requests() {
            let tokens = (source.tokens(index) as u64).min(left);
            if tokens == 0 {
                continue;
            }
            left -= tokens;
            let context = source.request(index).prompt_tokens.unwrap_or(0);
            requests.push(Request { at: None, context, tokens: tokens as u32 });
        }
        schedule(&mut requests, arrivals, seed);
        Workload { source, requests, members: Vec::new() }
    }

    /// The requests, in order of arrival.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Where the gate weights come from.
    pub fn gates(&self) -> &'static str {
        match self.source.gate_origin() {
            GateOrigin::Trace => "trace",
            GateOrigin::Synthetic => "synthetic",
        }
    }

    /// The experts of a layer for one token of each member: (request, tokens it has decoded).
    pub fn route(&mut self, members: &[(RequestId, u32)], layer: LayerId) -> Vec<Routed> {
        self.members.clear();
        self.members.extend(members.iter().map(|&(request, token)| (request.index(), token as usize)));
        let mut routed = Vec::new();
        self.source.merge(&self.members, layer.index(), &mut routed);
        routed
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
