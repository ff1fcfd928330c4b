//! One of several machines behind a dispatcher that gives each the next request in turn.

use crate::simulate::{Case, RunFailure};
use crate::workload::Arrivals;
use std::num::NonZero;
use std::sync::Arc;
use traces::requests::{Request, RequestTrace};

/// What the first of so many machines has to serve: the first request and every so-many-th after it; of clients that wait
/// for each other, its share. All machines are alike, so the first stands for each.
///
/// # Errors
/// The requests cannot be drawn.
pub fn replica(case: &Case, machines: NonZero<u32>) -> Result<Case, RunFailure> {
    let count = machines.get();
    if count == 1 {
        return Ok(case.clone());
    }
    let nth = NonZero::new(count as usize).unwrap_or(NonZero::<usize>::MIN);
    let limit_requests = case.limit_requests.map(|limit| limit.div_ceil(count));
    let limit_tokens = case.limit_tokens.map(|limit| limit.div_ceil(count.into()));
    let part = Case { limit_requests, limit_tokens, ..case.clone() };
    Ok(match &case.arrivals {
        &Arrivals::Closed { clients, think } => Case {
            arrivals: Arrivals::Closed { clients: clients.div_ceil(count), think },
            max_batch: case.max_batch.div_ceil(nth.get()),
            ..part
        },
        Arrivals::Recorded(trace) => {
            Case { arrivals: Arrivals::Recorded(Arc::new(trace.every(nth))), ..part }
        }
        // Drawn for all machines and then dealt out: what comes to one of them is no process with a name.
        Arrivals::Drawn(_) => {
            let workload = case.workload()?;
            let drawn = workload.requests().iter().step_by(nth.get()).filter_map(|request| {
                let (prompt_tokens, output_tokens) = (request.context, request.tokens);
                Some(Request { at: request.at?, prompt_tokens, output_tokens })
            });
            let trace: RequestTrace = drawn.collect();
            let unlimited = Case { limit_requests: None, limit_tokens: None, ..part };
            Case { arrivals: Arrivals::Recorded(Arc::new(trace)), ..unlimited }
        }
    })
}
