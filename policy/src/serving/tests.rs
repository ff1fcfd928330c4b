use super::cache::CacheSpec;
use super::*;
use crate::model::{Layer, Model};
use crate::phase::{Phase, Work};
use crate::units::Nanos;
use proptest::prelude::*;
use std::convert::Infallible;

/// One step; what it computes, as (request, cached before, tokens).
fn step(serving: &mut Serving, tally: &mut Tally, now: u64) -> Vec<(u32, u32, u32)> {
    let Ok(formed) = serving.form_step::<Infallible>(Time(now), &mut |_| Ok(true));
    let slices = serving.batch().iter().map(|s| (s.request.0, s.cached, s.tokens)).collect::<Vec<_>>();
    assert_eq!(formed, !slices.is_empty());
    serving.step_done(Time(now + 1), tally);
    slices
}

fn arrival(request: u32, context: u32, tokens: u32) -> Arrival {
    Arrival { request: RequestId(request), context, tokens, ..Arrival::default() }
}

/// Ten bytes a token in layers without a window, and one in a layer that sees eight tokens.
fn cache(most: u64, prefix_block: Option<u32>) -> Cache {
    cache_of(CacheSpec { page: 4, most: Bytes(most), prefix_block, keep: None })
}

fn cache_of(spec: CacheSpec) -> Cache {
    let layer = |kv, window| Layer { kv_per_token: Bytes(kv), window, ..Layer::default() };
    let model = Model { layers: vec![layer(4, None), layer(6, None), layer(1, Some(8))], ..Model::default() };
    Cache::new(&model, spec)
}

#[test]
fn prompts_are_computed_in_chunks_beside_decoding_requests() {
    let (mut serving, mut tally) = (Serving::new(2, Some(4), None), Tally::default());
    serving.arrive(arrival(0, 6, 3), Time(0));
    assert_eq!(step(&mut serving, &mut tally, 0), [(0, 0, 4)]);
    assert_eq!(tally.output_tokens, 0);
    serving.arrive(arrival(1, 5, 1), Time(1));
    // The first prompt's rest and the beginning of the second; the first request has its first token.
    assert_eq!(step(&mut serving, &mut tally, 1), [(0, 4, 2), (1, 0, 2)]);
    assert_eq!(tally.output_tokens, 1);
    assert_eq!(step(&mut serving, &mut tally, 2), [(0, 6, 1), (1, 2, 3)]);
    assert_eq!(step(&mut serving, &mut tally, 3), [(0, 7, 1)]);
    assert!(step(&mut serving, &mut tally, 9).is_empty());
    assert_eq!((tally.prompt_tokens, tally.output_tokens, tally.left.len()), (11, 4, 2));
}

#[test]
fn without_prefill_a_request_decodes_at_once() {
    let (mut serving, mut tally) = (Serving::new(2, None, None), Tally::default());
    serving.arrive(arrival(0, 6, 2), Time(0));
    assert_eq!(step(&mut serving, &mut tally, 0), [(0, 6, 1)]);
    assert_eq!(step(&mut serving, &mut tally, 1), [(0, 7, 1)]);
    assert_eq!((tally.prompt_tokens, tally.left[0].tokens), (0, 2));
}

#[test]
fn higher_priorities_are_admitted_first_and_then_first_come_first_served() {
    let (mut serving, mut tally) = (Serving::new(1, Some(100), None), Tally::default());
    for (request, priority) in [(0, 0), (1, 0), (2, 9), (3, 9)] {
        serving.arrive(Arrival { priority, ..arrival(request, 1, 1) }, Time(0));
    }
    let order: Vec<u32> = (0..4).map(|now| step(&mut serving, &mut tally, now)[0].0).collect();
    assert_eq!(order, [2, 3, 0, 1]);
}

#[test]
fn pages_are_taken_as_requests_grow_and_given_back() {
    let (mut serving, mut tally) = (Serving::new(2, Some(100), Some(cache(10_000, None))), Tally::default());
    serving.arrive(arrival(0, 5, 20), Time(0));
    let mut taken = Vec::new();
    for now in 0..20 {
        step(&mut serving, &mut tally, now);
        taken.push(serving.cache_bytes().unwrap().0);
    }
    // Two pages for five tokens; the window reaches into three pages at most.
    let pages = |pages: u64| pages * 40 + pages.min(3) * 4;
    let expected: Vec<u64> = (5..24).map(|tokens: u64| pages(tokens.div_ceil(4))).chain([0]).collect();
    assert_eq!(taken, expected);
    assert_eq!(serving.cache_use().unwrap().peak.0, pages(6));
}

#[test]
fn the_request_that_came_last_gives_way_and_computes_its_tokens_again() {
    // Room for 7 pages: two requests of 3 pages, and one page more.
    let (mut serving, mut tally) =
        (Serving::new(4, Some(100), Some(cache(7 * 40 + 6 * 4, None))), Tally::default());
    serving.arrive(arrival(0, 10, 12), Time(0));
    serving.arrive(arrival(1, 10, 8), Time(0));
    assert_eq!(step(&mut serving, &mut tally, 0), [(0, 0, 10), (1, 0, 10)]);
    assert_eq!(step(&mut serving, &mut tally, 1), [(0, 10, 1), (1, 10, 1)]);
    assert_eq!(step(&mut serving, &mut tally, 2), [(0, 11, 1), (1, 11, 1)]);
    // The fourth page of one leaves none for the other, which waits until the first is done.
    assert_eq!(step(&mut serving, &mut tally, 3), [(0, 12, 1)]);
    for now in 4..12 {
        assert_eq!(step(&mut serving, &mut tally, now), [(0, now as u32 + 9, 1)]);
    }
    // Its prompt and the three tokens it had put out.
    assert_eq!(step(&mut serving, &mut tally, 12), [(1, 0, 13)]);
    assert_eq!(step(&mut serving, &mut tally, 13), [(1, 13, 1)]);
    assert_eq!(serving.cache_use().unwrap().preemptions, 1);
    assert_eq!(tally.output_tokens, 12 + 5);
    // All of it but the token that it had put out last had been computed before.
    assert_eq!((tally.prompt_tokens, tally.recomputed_tokens), (20, 12));
}

#[test]
fn a_prefix_is_computed_once_and_goes_when_the_room_is_needed() {
    // Two blocks of 8 tokens in common, room for 6 blocks and what windows take.
    let (mut serving, mut tally) = (Serving::new(1, Some(100), Some(cache(600, Some(8)))), Tally::default());
    let with =
        |request, context, blocks: &[u64]| Arrival { prefix: blocks.into(), ..arrival(request, context, 1) };
    serving.arrive(with(0, 20, &[1, 2, 3]), Time(0));
    serving.arrive(with(1, 18, &[1, 2, 4]), Time(0));
    assert_eq!(step(&mut serving, &mut tally, 0), [(0, 0, 20)]);
    assert_eq!(step(&mut serving, &mut tally, 1), [(1, 16, 2)]);
    assert_eq!(serving.cache_bytes().unwrap().0, 2 * 80);
    // All but what is computed for a request at the least: its last token.
    serving.arrive(with(2, 16, &[1, 2]), Time(2));
    assert_eq!(step(&mut serving, &mut tally, 2), [(2, 8, 8)]);
    serving.arrive(with(3, 44, &[7, 8, 9, 10, 11]), Time(3));
    assert_eq!(step(&mut serving, &mut tally, 3), [(3, 0, 44)]);
    // The rest of the old prefix had to go, the deeper block first.
    serving.arrive(with(4, 20, &[1, 2, 3]), Time(4));
    assert_eq!(step(&mut serving, &mut tally, 4), [(4, 8, 12)]);
    assert_eq!(serving.cache_use().unwrap().prefix_tokens, 16 + 8 + 8);
}

#[test]
fn a_prefix_that_nobody_reads_goes_when_its_time_is_over() {
    let spec = CacheSpec { page: 4, most: Bytes(10_000), prefix_block: Some(8), keep: Some(Nanos(10)) };
    let cache = cache_of(spec);
    let (mut serving, mut tally) = (Serving::new(1, Some(100), Some(cache)), Tally::default());
    let with = |request, blocks: &[u64]| Arrival { prefix: blocks.into(), ..arrival(request, 16, 1) };
    serving.arrive(with(0, &[1, 2]), Time(0));
    assert_eq!(step(&mut serving, &mut tally, 0), [(0, 0, 16)]);
    // It was left at 1. The first block is read again at 5, and stays until ten after that step's end.
    serving.arrive(with(1, &[1, 3]), Time(5));
    assert_eq!(step(&mut serving, &mut tally, 5), [(1, 8, 8)]);
    for (now, blocks) in [(10, 3), (11, 2), (15, 2), (16, 0)] {
        // A request that is refused: time goes on.
        assert!(!serving.arrive(arrival(9, 1000, 1000), Time(now)));
        assert_eq!(serving.cache_bytes().unwrap().0, blocks * 80, "{now}");
    }
}

#[test]
fn a_request_that_never_fits_is_refused_and_one_that_blocks_leave_no_room_for_waits() {
    let mut serving = Serving::new(1, Some(100), Some(cache(200, None)));
    assert!(!serving.arrive(arrival(0, 100, 1), Time(0)));
    assert!(serving.arrive(arrival(1, 4, 1), Time(0)));
    let Ok(formed) = serving.form_step::<Infallible>(Time(0), &mut |_| Ok(false));
    assert!(!formed && serving.is_waiting());
    let Ok(formed) = serving.form_step::<Infallible>(Time(1), &mut |wanted| Ok(wanted <= Bytes(44)));
    assert!(formed);
    assert_eq!(serving.cache_use().unwrap().rejected, 1);
}

proptest! {
    /// Whatever comes in and however small the cache: it is never over its size, every request that can be served is served
    /// in full, and each token is computed on top of those before it.
    #[test]
    fn every_request_is_served_within_the_cache(
        requests in prop::collection::vec((1u32..60, 1u32..40, 0u8..3, 0u64..4), 1..20),
        most in 100u64..1500,
        chunk in 1u32..40,
        batch in 1usize..6,
        prefixes: bool,
        refuse in prop::collection::vec(any::<bool>(), 64),
    ) {
        let block = prefixes.then_some(8);
        let (mut serving, mut tally) = (Serving::new(batch, Some(chunk), Some(cache(most, block))), Tally::default());
        let mut expected = Vec::new();
        for (request, &(context, tokens, priority, family)) in (0..).zip(&requests) {
            // Prompts of one family begin alike.
            let prefix = (0..u64::from(context) / 8).map(|place| family << 32 | place).collect();
            let arrival = Arrival { priority, prefix, ..arrival(request, context, tokens) };
            if serving.arrive(arrival, Time(0)) {
                expected.push((request, tokens));
            }
        }
        let mut cached = vec![0u32; requests.len()];
        let mut now = 0;
        while serving.is_running() || serving.is_waiting() {
            // Blocks refuse to give way now and then, but not for ever.
            let refused = refuse[now as usize % refuse.len()];
            let Ok(formed) = serving.form_step::<Infallible>(Time(now), &mut |bytes| Ok(!refused && bytes.0 <= most));
            prop_assert!(serving.cache_bytes().unwrap().0 <= most);
            prop_assert!(formed || refused || now % 2 == 1, "nothing can go on");
            for slice in serving.batch().iter().filter(|_| formed) {
                let before = &mut cached[slice.request.index()];
                prop_assert!(slice.cached == *before || slice.cached == 0 || prefixes, "{slice:?} after {before}");
                *before = slice.cached + slice.tokens;
            }
            if formed {
                serving.step_done(Time(now + 1), &mut tally);
            }
            now += 1;
            prop_assert!(now < 100_000, "requests wait for ever");
        }
        let mut served: Vec<(u32, u32)> = tally.left.iter().map(|times| (times.request.0, times.tokens)).collect();
        served.sort_unstable();
        prop_assert_eq!(served, expected);
        // Every token of a prompt is computed for the first time or found, once.
        let prompts: u64 = tally.left.iter().map(|times| u64::from(times.context)).sum();
        let used = serving.cache_use().unwrap();
        prop_assert_eq!(tally.prompt_tokens + used.prefix_tokens, prompts);
        prop_assert!(used.preemptions > 0 || tally.recomputed_tokens == 0);
        prop_assert!(serving.cache_use().unwrap().peak.0 <= most);
    }
}

/// Phases of so many layers each, the last of tokens, for requests of one model.
fn phases(steps: &[(u16, u32)], decoder: u16, tenant: u16, first: u16) -> Vec<Phase> {
    let mut layers = first..first;
    let mut phase = |count: u16, work| {
        layers = layers.end..layers.end + count;
        let layers = layers.clone();
        Phase { name: String::new(), layers, work, tenant, head: None, tolerance: vec![1.0, 0.5] }
    };
    let mut all: Vec<Phase> = Vec::new();
    for &(count, steps) in steps {
        all.push(phase(count, Work::Steps { steps, sequences: 2, tokens: 3 }));
    }
    if decoder > 0 {
        all.push(phase(decoder, Work::Tokens));
    }
    all
}

#[test]
fn a_request_goes_through_its_phases_and_then_puts_out_tokens() {
    let (mut serving, mut tally) =
        (Serving::new(1, Some(8), None).with_phases(phases(&[(2, 2)], 4, 0, 0)), Tally::default());
    serving.arrive(arrival(0, 5, 2), Time(0));
    // Two steps of two whole sequences, the prompt, and a token.
    let whole = vec![(0, 0, 3); 2];
    let all: Vec<_> = (0..4).map(|now| step(&mut serving, &mut tally, now)).collect();
    assert_eq!(all, [whole.clone(), whole, vec![(0, 0, 5)], vec![(0, 5, 1)]]);
    assert!(step(&mut serving, &mut tally, 9).is_empty());
    assert_eq!((tally.completed, tally.output_tokens, tally.prompt_tokens), (1, 2, 5));
}

#[test]
fn without_a_decoder_a_request_puts_out_one_thing_at_its_last_step() {
    let (mut serving, mut tally) =
        (Serving::new(1, None, None).with_phases(phases(&[(2, 1), (4, 3)], 0, 0, 0)), Tally::default());
    (0..2).for_each(|request| assert!(serving.arrive(arrival(request, 0, 1), Time(0))));
    for now in 0..4 {
        assert_eq!(tally.completed, 0);
        let Ok(formed) = serving.form_step::<Infallible>(Time(now), &mut |_| Ok(true));
        assert!(formed && !serving.emits() && serving.batch_len() == 1);
        // What is left of the three steps of four layers, and then the request that waits.
        let expected = [vec![2 + 3 * 4, 2], vec![4 + 2 * 4, 4], vec![4 + 4, 4], vec![4, 4 + 2]];
        let [encoder, transformer] = serving.next_steps()[..] else { panic!("two phases") };
        assert_eq!([encoder, transformer], [expected[now as usize][0], expected[now as usize][1]], "{now}");
        let tolerance = [1.0, 1.0, 0.75, 0.5][now as usize];
        assert!((serving.tolerance() - tolerance).abs() < 1e-12, "{now}");
        serving.step_done(Time(now + 1), &mut tally);
    }
    assert_eq!((tally.completed, tally.output_tokens), (1, 1));
    assert_eq!((tally.left[0].first_token, tally.left[0].finished), (Time(4), Time(4)));
}

#[test]
fn phases_of_several_models_take_turns_and_each_has_a_batch_of_its_own() {
    let both = [phases(&[(2, 3)], 0, 0, 0), phases(&[], 3, 1, 2)].concat();
    let (mut serving, mut tally) = (Serving::new(1, None, None).with_phases(both), Tally::default());
    for request in 0..4 {
        let tenant = u16::from(request > 1);
        assert!(serving.arrive(Arrival { tenant, ..arrival(request, 0, 2) }, Time(0)));
    }
    let order: Vec<u32> = (0..6).map(|now| step(&mut serving, &mut tally, now)[0].0).collect();
    assert_eq!(order, [2, 0, 2, 0, 3, 0]);
}
