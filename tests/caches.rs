//! Key-value caches in pages beside blocks, whole runs: fast memory is never lent twice, and nobody goes without.

use crate::small::{Small, fast, policies};
use policy::event::Platform;
use policy::serving::cache::CacheSpec;
use policy::{Bytes, TierId};
use proptest::prelude::*;
use scenarios::Length;
use sim::Case;
use std::collections::BTreeMap;

/// A case whose caches may take up to `share` of what blocks have.
fn case(small: &Small, prompt: u32, page: u32, share: f64) -> Case {
    let mut case = small.case();
    let tier: TierId = fast(&case.machine);
    let slot = case.model.largest_block().round_up(case.machine.tier(tier).granularity);
    let room = case.budgets[tier.index()].saturating_sub(slot);
    (case.prompt_tokens, case.prefill_chunk) = (Length::Fixed(prompt), Some(24));
    case.cache =
        Some(CacheSpec { page, most: Bytes((room.0 as f64 * share) as u64), prefix_block: None, keep: None });
    case
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]
    #[test]
    fn fast_memory_is_lent_once_and_every_request_is_answered(
        slots in 6u32..30,
        batch in 1u32..6,
        prompt in 1u32..120,
        page in 1u32..20,
        share in 0.01f64..1.0,
        seed: u16,
    ) {
        let requests = format!("{{ closed: {{ batch: {batch} }} }}");
        let small = Small { slots, requests, traces: 6, tokens: 90, seed: seed.into(), ..Small::default() };
        let case = case(&small, prompt, page, share);
        let shared = case.budgets[fast(&case.machine).index()];
        for entry in policies(false) {
            let params = entry.resolve(&BTreeMap::new()).unwrap();
            let mut orchestrator = case.orchestrator(entry, &params, false).unwrap();
            let mut world = case.world(false).unwrap();
            let mut commands = Vec::new();
            while let Some(event) = world.next_event().unwrap() {
                let handled = orchestrator.handle(event, &mut commands);
                prop_assert!(handled.is_ok(), "{}: {}", entry.name, handled.unwrap_err());
                let usage = orchestrator.context().ledger.usage(fast(&case.machine));
                prop_assert!(usage.used <= usage.capacity && usage.capacity <= shared, "{}: {usage:?}", entry.name);
                for command in commands.drain(..) {
                    world.submit(command).unwrap();
                }
            }
            let (tally, cache) = (orchestrator.tally(), orchestrator.cache_use().unwrap());
            let refused = tally.left.iter().filter(|request| request.refused).count() as u64;
            prop_assert_eq!((tally.completed + refused, refused), (6, cache.rejected), "{}", entry.name);
            prop_assert_eq!((tally.arrived, tally.left.len()), (6, 6));
            prop_assert!(cache.peak <= case.cache.unwrap().most);
            let tokens: u64 = tally.left.iter().map(|request| u64::from(request.tokens)).sum();
            prop_assert_eq!(tally.output_tokens, tokens);
            prop_assert_eq!(tally.prompt_tokens, tally.completed * u64::from(prompt));
            prop_assert!(cache.preemptions > 0 || tally.recomputed_tokens == 0);
            let preempted: u32 = tally.left.iter().map(|request| request.preemptions).sum();
            prop_assert_eq!(u64::from(preempted), cache.preemptions);
        }
    }
}
