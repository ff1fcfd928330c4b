//! Accelerators that are lost during a run and come back: against closed forms, and what must hold whoever is lost and when.

use policy::event::Form;
use policy::machine::Class;
use policy::{Bytes, Nanos, Orchestrator, Paths, Time, Watch};
use proptest::prelude::*;
use scenarios::{Pressure, Scenario, Taken};
use sim::world::World;
use sim::{Case, Keep, Outcome, resolve::resolve_policy};

/// Mixtral's 8 experts a layer over so many H100s; routers choose all experts alike in steps of many tokens.
fn scenario(expert: u32, extra: &str) -> Result<Scenario, String> {
    let text = format!(
        "name: loss
machine: h100-sxm
model: mixtral-8x7b
parallel: {{ expert: {expert} }}
workload:
  routing: {{ zipf_markov: {{ traces: 4, tokens: 1600, skew: 0, stickiness: 0, coupling: 0 }} }}
  requests: {{ closed: {{ batch: 64, limit: 64 }} }}
  prompt_tokens: 64
  output_tokens: 100
  prefill: {{ chunk: 512 }}
policy: lru
seed: 3
{extra}"
    );
    let loaded = scenarios::load_text("loss.yaml", &text, &[], &sim::resolve::check_policy);
    loaded.map_err(|wrong| wrong.render(false))
}

fn case(expert: u32, extra: &str) -> Case {
    let scenario = scenario(expert, extra).unwrap_or_else(|wrong| panic!("{wrong}"));
    Case::from_scenario(&scenario).unwrap()
}

/// When each step ended, and what was computed again by then.
#[derive(Default)]
struct Steps {
    ends: Vec<Time>,
    seen: u64,
}

impl Watch<World> for Steps {
    fn event(&mut self, at: Time, orchestrator: &mut Orchestrator, _: &World) {
        let steps = orchestrator.context().signals.step;
        if steps > self.seen {
            (self.seen, self.ends) = (steps, [&self.ends[..], &[at]].concat());
        }
    }
}

fn run(case: &Case) -> (Steps, Outcome) {
    let (entry, params) = resolve_policy("lru", &Default::default()).unwrap();
    let mut steps = Steps::default();
    let outcome = case.watch(entry, &params, Keep::default(), &mut steps).unwrap();
    (steps, outcome)
}

fn ranks(outcome: &Outcome) -> Vec<(&Orchestrator, &World)> {
    std::iter::once((&outcome.orchestrator, &outcome.world)).chain(outcome.world.others()).collect()
}

/// What was read over the links by all.
fn fetched(outcome: &Outcome) -> u64 {
    let of = |world: &World| world.links().map(|(_, count)| count.bytes).sum::<u64>();
    ranks(outcome).iter().map(|(_, world)| of(world)).sum()
}

#[test]
fn a_group_that_lost_half_goes_on_as_one_of_half_the_size() {
    let four = case(4, "pressure: [{ at: 700 ms, take: { accelerators: [2, 3] } }]\n");
    let (after, outcome) = run(&four);
    let (half, _) = run(&case(2, ""));
    // Before the first of the 64 requests ends, and after those of the lost are computed again: all experts are in fast memory.
    let pace = |steps: &Steps| steps.ends[95].since(steps.ends[70]).0 as f64 / 25.0;
    let ratio = pace(&after) / pace(&half);
    assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    assert_eq!(outcome.orchestrator.tally().output_tokens, 6400);
    let experts = |rank: &Orchestrator| {
        let ledger = &rank.context().ledger;
        (0..256).filter(|&block| ledger.is_fast(policy::BlockId(block))).count()
    };
    let held: Vec<usize> = ranks(&outcome).iter().map(|(rank, _)| experts(rank)).collect();
    assert_eq!(held[2..], [0, 0], "nothing is left of what the lost had");
    assert_eq!(held[..2].iter().sum::<usize>(), 256, "{held:?}");
}

#[test]
fn what_was_lost_is_back_when_its_bytes_have_crossed_the_links_of_the_survivors() {
    let lost = case(4, "pressure: [{ at: 700 ms, take: { accelerators: [1] } }]\n");
    let never = case(4, "pressure: [{ at: 9999 s, take: { accelerators: [1] } }]\n");
    let ((_, outcome), (_, whole)) = (run(&lost), run(&never));
    // Two experts of each of 32 layers, once more, and no other.
    let expert = lost.model.largest_block();
    assert_eq!(fetched(&outcome) - fetched(&whole), 64 * expert.0);
    // They go to three survivors, so in no layer does one of them fetch two: each waits for those that it takes.
    let path = Paths::new(&lost.machine);
    let path = path.between(lost.home.first(), lost.machine.tiers_of(Class::Fast).next().unwrap()).unwrap();
    let stall = |outcome: &Outcome| -> Vec<u64> {
        ranks(outcome).iter().map(|(rank, _)| rank.tally().stall_total().0).collect()
    };
    let (with, without) = (stall(&outcome), stall(&whole));
    let more: u64 = [0, 2, 3].into_iter().map(|rank| with[rank] - without[rank]).sum();
    let expected = 64.0 * path.transfer(expert).0 as f64;
    assert!((more as f64 / expected - 1.0).abs() < 0.02, "{more} for {expected}");
}

#[test]
fn requests_of_the_lost_are_computed_again_and_nobody_loses_a_token() {
    let lost = case(
        4,
        "pressure: [{ at: 700 ms, take: { accelerators: [1] } }, { at: 1 s, take: { accelerators: [] } }]\n",
    );
    let (_, outcome) = run(&lost);
    let tally = outcome.orchestrator.tally();
    assert_eq!((tally.completed, tally.output_tokens, tally.prompt_tokens), (64, 6400, 64 * 64));
    let [loss] = &tally.losses[..] else { panic!("{:?}", tally.losses) };
    assert_eq!((loss.rank, loss.abandoned.requests), (1, 16), "a quarter of them");
    assert!(loss.at >= Time(700_000_000) && loss.at < Time(720_000_000), "{:?}", loss.at);
    assert!(loss.back.is_some_and(|back| back >= Time(1_000_000_000) && back < Time(1_500_000_000)));
    assert_eq!(tally.recomputed_tokens, loss.abandoned.tokens);
    for (rank, _) in ranks(&outcome) {
        assert_eq!(rank.tally().latencies, tally.latencies, "all serve the same");
        assert_eq!(rank.tally().losses, tally.losses);
    }
}

#[test]
fn caches_that_are_taken_over_take_memory_from_experts() {
    let extra = "kv: 8 GiB\npressure: [{ at: 700 ms, take: { accelerators: [1, 2] } }]\n";
    let lost = case(4, extra);
    let (_, outcome) = run(&lost);
    let context = outcome.orchestrator.context();
    let budget = lost.budgets[context.costs.fast.index()];
    assert_eq!(
        context.ledger.usage(context.costs.fast).capacity,
        budget - Bytes(8 << 30),
        "32 requests for 16"
    );
}

#[test]
fn one_alone_serves_on_without_sending_anything() {
    let alone =
        case(2, "memory: { hbm: 160 slots }\npressure: [{ at: 700 ms, take: { accelerators: [1] } }]\n");
    let (_, outcome) = run(&alone);
    let tally = outcome.orchestrator.tally();
    assert_eq!((tally.completed, tally.output_tokens), (64, 6400));
    let (_, world) = outcome.world.others().next().unwrap();
    assert!(
        world.waited() > Nanos::ZERO
            && world.memory().used(outcome.orchestrator.context().costs.fast).0 < 16 << 30
    );
}

#[test]
fn what_cannot_be_lost_is_refused() {
    let refused = |expert: u32, extra: &str, told: &str| {
        let wrong = scenario(expert, extra).map(|_| ()).unwrap_err();
        assert!(wrong.contains(told), "{wrong}");
    };
    let lost = |which: &str| format!("pressure: [{{ at: 2 s, take: {{ accelerators: {which} }} }}]\n");
    refused(4, &lost("[0]"), "the first accelerator is the one whose memory");
    refused(4, &lost("[4]"), "no accelerator 4 among 4");
    refused(4, &lost("[x]"), "pressure[0].take.accelerators");
    refused(1, &lost("[1]"), "nobody is left to serve");
    let load = |text: &str| {
        let loaded = scenarios::load_text("loss.yaml", text, &[], &sim::resolve::check_policy);
        loaded.map(|_| ()).unwrap_err().render(false)
    };
    let text = |parallel: &str, prefill: &str| {
        format!(
            "name: loss\nmachine: h100-sxm\nmodel: mixtral-8x7b\nparallel: {{ {parallel} }}\nworkload:\n  \
             routing: {{ zipf_markov: {{ traces: 4, tokens: 160 }} }}\n  requests: {{ closed: {{ batch: 4 }} }}\n{prefill}policy: lru\n{}",
            lost("[1]")
        )
    };
    let prefill = "  prefill: { chunk: 64 }\n";
    assert!(load(&text("tensor: 2, expert: 2", prefill)).contains("without a part of every layer"));
    assert!(
        load(&text("pipeline: 2", prefill)).contains("without a part of every layer, or without a stage")
    );
    assert!(load(&text("expert: 2", "")).contains("prompts are not computed"));
}

/// What happens so many hundredths of a second after what was before: who is lost from then on, or what others take of fast memory.
type Walk = Vec<(u64, Result<u8, u64>)>;

fn walks() -> impl Strategy<Value = (Walk, u32, u64)> {
    let taken = prop_oneof![(0u8..8).prop_map(Ok), (0u64..=100).prop_map(Err)];
    (prop::collection::vec((1u64..60, taken), 1..12), 14u32..200, any::<u64>())
}

/// Four accelerators, of which any but the first are lost, and memory that others take: what must hold of every run. Returns its events.
fn survives(walk: &[(u64, Result<u8, u64>)], slots: u32, seed: u64, policy: &str) -> u64 {
    let text = format!(
        "kv: 1 GiB\nmemory: {{ hbm: {slots} slots }}\npressure: [{{ at: 1 s, take: {{ accelerators: [1] }} }}]\n"
    );
    let mut case = case(4, &text);
    let fast = case.machine.tiers_of(Class::Fast).next().unwrap();
    // Three blocks stay, and the caches of four, of whom one may be left.
    let spare = case.budgets[fast.index()] - Bytes(3 * case.model.largest_block().0 + (3 << 30));
    let mut at = Nanos::ZERO;
    let entry = |&(after, taken): &(u64, Result<u8, u64>)| {
        at += Nanos(after * 10_000_000);
        let taken = match taken {
            Ok(set) => Taken::Accelerators((1..4).filter(|rank| set >> (rank - 1) & 1 == 1).collect()),
            Err(percent) => Taken::Memory(fast, Bytes(spare.0 / 100 * percent)),
        };
        Pressure { at, taken }
    };
    case.pressure = walk.iter().map(entry).collect();
    case.seed = seed;
    let (entry, params) = resolve_policy(policy, &Default::default()).unwrap();
    let outcome =
        case.run(entry, &params, Keep::default(), |_| {}).unwrap_or_else(|failure| panic!("{failure}"));
    let tally = outcome.orchestrator.tally();
    let short = &case.output_tokens;
    assert_eq!((tally.arrived, tally.completed), (64, 64), "{short:?}");
    assert_eq!(tally.output_tokens, 6400);
    assert_eq!(tally.prompt_tokens, 64 * 64, "a token of a prompt counts once");
    let again: u64 = tally.losses.iter().map(|loss| loss.abandoned.tokens).sum();
    assert!(tally.recomputed_tokens <= again, "nothing else is computed again");
    let mut events = 0;
    for (number, (rank, world)) in ranks(&outcome).into_iter().enumerate() {
        assert_eq!(&rank.tally().latencies, &tally.latencies, "rank {number}");
        assert_eq!(rank.tally().losses, tally.losses, "rank {number}");
        let ledger = &rank.context().ledger;
        for (block, form) in case.home_copies() {
            assert!(ledger.has(block, form), "{block:?} at rank {number}");
        }
        let usage = ledger.usage(fast);
        let lost = tally.losses.iter().any(|loss| loss.rank as usize == number && loss.back.is_none());
        assert!(!lost || usage.used == Bytes::ZERO, "rank {number} is lost and has {:?}", usage.used);
        assert!(usage.used <= usage.capacity, "rank {number}: {usage:?}");
        // The world counts for itself.
        let blocks = 0..case.model.blocks.len() as u32;
        let held = blocks.flat_map(|block| ledger.fast_copies(policy::BlockId(block)));
        let form = Form { tier: fast, format: case.model.blocks[0].native };
        assert_eq!(
            held.filter(|copy| *copy == form).count() as u64 * case.model.largest_block().0,
            usage.used.0
        );
        assert_eq!(world.memory().used(fast), usage.used, "rank {number}");
        events += world.ticks();
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) })]
    #[test]
    fn whoever_is_lost_and_whenever_every_request_is_served((walk, slots, seed) in walks()) {
        for policy in ["lru", "predictive"] {
            survives(&walk, slots, seed, policy);
        }
    }
}
