//! Prompts computed in chunks, and weights loaded before the first request is served.

use crate::small::{Small, fast, serve};
use policy::tally::RequestTimes;
use policy::{Nanos, Paths, TierId, Time};
use scenarios::Length;
use sim::Case;

const PROMPT: u32 = 50;

fn with_prompts(small: &Small, chunk: u32) -> Case {
    let mut case = small.case();
    case.prompt_tokens = Length::Fixed(PROMPT);
    case.prefill_chunk = Some(chunk);
    case
}

fn first_tokens(requests: &[RequestTimes]) -> Vec<Time> {
    requests.iter().map(|request| request.first_token).collect()
}

#[test]
fn every_prompt_token_is_computed_once_whatever_the_chunk() {
    let requests = "{ closed: { batch: 2 } }".to_owned();
    let small = Small { requests, ..Small::default() };
    for policy in ["lru", "predictive"] {
        for chunk in [1, 7, 64, 1000] {
            let (outcome, requests) = serve(&with_prompts(&small, chunk), policy);
            let tally = outcome.orchestrator.tally();
            assert_eq!((requests.len(), tally.output_tokens), (3, 60), "{policy}, {chunk}");
            assert_eq!(tally.prompt_tokens, u64::from(3 * PROMPT), "{policy}, {chunk}");
            assert!(requests.iter().all(|request| request.tokens == 20));
        }
    }
}

#[test]
fn a_larger_chunk_reads_the_weights_less_often_and_gives_the_first_token_earlier() {
    let small = Small { traces: 1, ..Small::default() };
    let first = |chunk| first_tokens(&serve(&with_prompts(&small, chunk), "lru").1)[0];
    assert!(first(50) < first(10) && first(10) < first(1));
}

#[test]
fn a_prompt_that_needs_more_experts_than_there_are_slots_runs_in_waves() {
    let small = Small { slots: 5, ..Small::default() };
    let (outcome, _) = serve(&with_prompts(&small, PROMPT), "lru");
    let tally = outcome.orchestrator.tally();
    assert!(tally.extra_waves > 0);
    assert_eq!(tally.prompt_tokens, u64::from(3 * PROMPT));
}

#[test]
fn requests_wait_until_the_weights_are_loaded() {
    let disk = TierId(2);
    let mut case = Small::default().case();
    let (_, before) = serve(&case, "lru");
    case.load_from = Some(disk);
    let (after, requests) = serve(&case, "lru");
    // Home copies and resident weights share the disk's link all the way; the second half of their way is wider.
    let home = after.world.memory().used(case.home.first());
    let paths = Paths::new(&case.machine);
    let path = paths.between(disk, fast(&case.machine)).unwrap();
    let first = paths.between(disk, case.home.first()).unwrap();
    let whole = first.peak.time_for(home + case.model.resident_bytes());
    let loaded = after.world.loaded();
    let slack = path.latency + path.submit + path.submit;
    assert!(loaded.0 >= whole.0 && loaded.0 <= whole.0 + slack.0 + 10, "{loaded:?}, {whole:?}");
    let shifted: Vec<_> = first_tokens(&before).into_iter().map(|at| at + Nanos(loaded.0)).collect();
    assert_eq!(first_tokens(&requests), shifted);
}
