//! Copies kept below fast memory beside the home ones: read from where each arrives first, given back within a chunk, and lost
//! without loss.

use crate::small::{Small, fast, policies};
use policy::orchestrator::Orchestrator;
use policy::record::{Action, Decision};
use policy::registry::{Entry, lookup};
use policy::{Bandwidth, Bytes, Machine, Nanos, Paths, TierId, Time, Watch};
use proptest::prelude::*;
use scenarios::{Pressure, Taken};
use sim::world::World;
use sim::{Case, Keep, Outcome};

fn tier(machine: &Machine, name: &str) -> TierId {
    TierId(machine.tiers.iter().position(|tier| tier.name == name).unwrap() as u8)
}

fn watched(case: &Case, entry: &'static Entry, watch: &mut impl Watch<World>) -> Outcome {
    let params = entry.resolve(&Default::default()).unwrap();
    let keep = Keep { decisions: true, ..Keep::default() };
    let outcome = case.watch(entry, &params, keep, watch);
    outcome.unwrap_or_else(|failure| panic!("{}: {failure}", entry.name))
}

/// What each layer step fetched from each of two tiers, and how long it waited.
struct Steps {
    tiers: [TierId; 2],
    stalled: Nanos,
    fetched: [u64; 2],
    /// Whether every block had a copy in both after the step before.
    settled: bool,
    /// Steps in which that was so from the beginning.
    seen: Vec<([u64; 2], Nanos)>,
}

impl Watch<World> for Steps {
    fn decision(&mut self, decision: Decision) {
        if decision.action == Action::Fetch {
            let place = self.tiers.iter().position(|&tier| tier == decision.from.unwrap().tier);
            self.fetched[place.unwrap()] += 1;
        }
    }

    fn event(&mut self, _: Time, orchestrator: &mut Orchestrator, _: &World) {
        let (context, stalled) = (orchestrator.context(), orchestrator.tally().stall_total());
        if stalled == self.stalled {
            return;
        }
        let blocks = || (0..context.model.blocks.len() as u32).map(policy::BlockId);
        let in_tier = |block, tier| context.ledger.copies(block).any(|form| form.tier == tier);
        let everywhere = self.tiers.iter().all(|&tier| blocks().all(|block| in_tier(block, tier)));
        if std::mem::replace(&mut self.settled, everywhere) {
            self.seen.push((self.fetched, Nanos(stalled.0 - self.stalled.0)));
        }
        (self.fetched, self.stalled) = ([0, 0], stalled);
    }
}

/// The time of so many copies over two links at once, shared out as well as can be.
fn shared_out(copies: u64, over: impl Fn(usize, u64) -> Nanos) -> Nanos {
    (0..=copies).map(|one| over(0, one).max(over(1, copies - one))).min().unwrap()
}

#[test]
fn each_copy_comes_from_where_it_arrives_first() {
    for nvlink in [0.5, 0.9, 1.1, 2.0, 3.0, 7.0, 20.0] {
        let small =
            Small { layers: 1, experts: 16, selected: 6, slots: 6, peer: 16, nvlink, ..Small::default() };
        let case =
            Small { tokens: 400, traces: 1, skew: 0.0, stickiness: 0.0, chunk: 64 << 20, ..small }.case();
        let tiers = ["dram", "peer"].map(|name| tier(&case.machine, name));
        let (stalled, fetched, settled, seen) = (Nanos::ZERO, [0, 0], false, Vec::new());
        let mut steps = Steps { tiers, stalled, fetched, settled, seen };
        watched(&case, lookup("lru").unwrap(), &mut steps);
        let (paths, bytes) = (Paths::new(&case.machine), case.model.largest_block());
        let over = |place: usize, copies: u64| {
            let path = paths.between(tiers[place], fast(&case.machine)).unwrap();
            if copies == 0 { Nanos::ZERO } else { path.latency + Nanos(path.busy(bytes).0 * copies) }
        };
        assert!(steps.seen.len() > 200, "{nvlink}: {} steps", steps.seen.len());
        for (fetched, stalled) in &steps.seen {
            let best = shared_out(fetched.iter().sum(), over);
            let off = stalled.0 as f64 / best.0.max(1) as f64 - 1.0;
            assert!(off.abs() < 0.01, "{nvlink}: {fetched:?} took {stalled:?}, at best {best:?}");
        }
    }
}

/// How long the owner of a tier waits for what it takes back.
struct Owner {
    tier: TierId,
    since: Option<Time>,
    longest: Nanos,
    reclaims: u32,
}

impl Watch<World> for Owner {
    fn event(&mut self, at: Time, orchestrator: &mut Orchestrator, _: &World) {
        let usage = orchestrator.context().ledger.usage(self.tier);
        let waits = usage.used > usage.capacity;
        match self.since {
            None if waits => (self.since, self.reclaims) = (Some(at), self.reclaims + 1),
            Some(since) if !waits => {
                self.longest = self.longest.max(at.since(since));
                self.since = None;
            }
            _ => {}
        }
    }
}

/// Random changes of what others take: of fast memory, of a lent memory such as a peer's, its loss, and a link's rate.
pub(crate) fn changes(case: &Case, peer: TierId, draws: &[(u64, u8, u32)]) -> Vec<Pressure> {
    let fast = fast(&case.machine);
    let share = |of: Bytes, percent: u32| Bytes(of.0 * u64::from(percent) / 100);
    let block = case.model.largest_block();
    let links = |name: &str| {
        let links = (0u8..).map(policy::LinkId).zip(&case.machine.links);
        let found: Vec<_> = links.filter(|(_, link)| link.name == name).map(|(id, _)| id).collect();
        [found[0], found[1]]
    };
    let mut at = Nanos::ZERO;
    let each = draws.iter().map(|&(after, what, percent)| {
        at += Nanos(1 + after * 1_000);
        let taken = match what % 6 {
            0 => Taken::Memory(fast, share(case.budgets[fast.index()].saturating_sub(block), percent)),
            1 | 2 => Taken::Memory(peer, share(case.budgets[peer.index()], percent)),
            3 => Taken::Memory(peer, Bytes::ZERO),
            4 => Taken::Tier(peer),
            _ => Taken::Link(links("pcie"), Bandwidth(u64::from(percent) * 9_000_000)),
        };
        Pressure { at, taken }
    });
    each.collect()
}

/// Everything was served, nothing but staged copies was lost, and the world, which trusts no controller, did not object.
pub(crate) fn holds(case: &Case, entry: &'static Entry, watch: &mut impl Watch<World>) -> u64 {
    let outcome = watched(case, entry, watch);
    let tally = outcome.orchestrator.tally();
    assert_eq!(tally.completed, tally.arrived, "{}", entry.name);
    let context = outcome.orchestrator.context();
    for (block, form) in case.home_copies() {
        assert!(context.ledger.has(block, form), "{} lost {block:?}", entry.name);
    }
    for (index, _) in case.machine.tiers.iter().enumerate() {
        let id = TierId(index as u8);
        let usage = context.ledger.usage(id);
        let copies = (0..case.model.blocks.len() as u32).map(policy::BlockId);
        let held = copies.flat_map(|block| context.ledger.copies(block).map(move |form| (block, form)));
        let held = held.filter(|(_, form)| form.tier == id);
        let bytes: Bytes = held.map(|(block, form)| context.ledger.footprint(block, form)).sum();
        let flights = context.ledger.flights().filter(|(_, flight)| flight.involves(id));
        assert!(flights.count() > 0 || bytes == usage.used, "{}: {id:?} {bytes} {usage:?}", entry.name);
    }
    tally.events
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]
    #[test]
    fn an_owner_gets_its_memory_back_within_a_chunk(
        draws in prop::collection::vec((1u64..2_000, 1u8..4, 0u32..=100), 1..12),
        chunk in 1u64..40_000, nvlink in 1.0f64..8.0, seed: u64,
    ) {
        let small = Small { slots: 12, peer: 24, nvlink, chunk, seed, traces: 4, ..Small::default() };
        let mut case = small.case();
        case.pressure = changes(&case, tier(&case.machine, "peer"), &draws);
        let peer = tier(&case.machine, "peer");
        let (paths, fast) = (Paths::new(&case.machine), fast(&case.machine));
        let path = paths.between(peer, fast).unwrap();
        // Two halves, each of which pays what handing it over costs.
        let most = path.transfer(case.pace.chunk) + path.submit + path.submit + Nanos(2);
        for entry in policies(true) {
            let mut owner = Owner { tier: peer, since: None, longest: Nanos::ZERO, reclaims: 0 };
            holds(&case, entry, &mut owner);
            prop_assert!(owner.longest <= most, "{}: {:?}, a chunk takes {most:?}", entry.name, owner.longest);
        }
    }

    #[test]
    fn nothing_is_lost_with_what_was_staged(
        draws in prop::collection::vec((1u64..2_000, 0u8..6, 0u32..=100), 1..16),
        batch in 1u32..4, slots in 4u32..16, coded: bool, seed: u64,
    ) {
        let requests = format!("{{ closed: {{ batch: {batch} }} }}");
        let (encoded, drift_budget): (&[&str], f64) = if coded { (&["int8"], 1.0) } else { (&[], 0.0) };
        let small = Small { encoded, drift_budget, slots, peer: 20, traces: 4, ..Small::default() };
        let mut case = Small { seed, requests, ..small }.case();
        case.pressure = changes(&case, tier(&case.machine, "peer"), &draws);
        for entry in policies(true) {
            holds(&case, entry, &mut policy::drive::Nobody);
        }
    }
}

#[test]
fn a_million_events_under_loss_and_pressure_break_nothing() {
    let (mut events, mut seed) = (0, 0);
    let entries: Vec<_> = policies(true).collect();
    while events < 1_000_000 {
        seed += 1;
        // Any sequence will do that differs from seed to seed.
        let draw = |place: u64, below: u64| {
            6_364_136_223_846_793_005u64.wrapping_mul(seed).rotate_left(place as u32 % 61) % below
        };
        let draws: Vec<_> =
            (0..40).map(|n| (draw(n, 9_000), draw(n + 7, 6) as u8, draw(n + 13, 101) as u32)).collect();
        let small =
            Small { slots: 6 + draw(3, 10) as u32, peer: 8 + draw(5, 20) as u32, seed, ..Small::default() };
        let mut case = Small { tokens: 400, traces: 8, layers: 6, ..small }.case();
        case.pressure = changes(&case, tier(&case.machine, "peer"), &draws);
        events += holds(&case, entries[seed as usize % entries.len()], &mut policy::drive::Nobody);
    }
}

#[test]
fn what_passes_through_host_memory_is_read_from_the_drives_once() {
    let changes = [
        ("memory.hbm", "64 slots"),
        ("home", "nvme"),
        ("staging", "[dram]"),
        ("model", "mixtral-8x7b"),
        ("workload.routing.zipf_markov.tokens", "300"),
    ];
    let case = crate::homes::shipped("deepseek-v3-nvme", &changes);
    let [dram, nvme] = ["dram", "nvme"].map(|name| tier(&case.machine, name));
    let mut fetched = vec![[0u32; 2]; case.model.blocks.len()];
    struct From<'a>(&'a mut Vec<[u32; 2]>, [TierId; 2]);
    impl Watch<World> for From<'_> {
        fn decision(&mut self, decision: Decision) {
            let from = decision.from.map(|form| form.tier);
            if let (Action::Fetch, Some(place)) =
                (decision.action, self.1.iter().position(|&tier| Some(tier) == from))
            {
                self.0[decision.block.index()][place] += 1;
            }
        }
    }
    let outcome = watched(&case, lookup("lru").unwrap(), &mut From(&mut fetched, [nvme, dram]));
    assert!(fetched.iter().all(|[cold, _]| *cold <= 1));
    assert!(fetched.iter().map(|[_, staged]| staged).sum::<u32>() > 1_000);
    // Both copies are made by one flow: the bytes cross the drives' link once.
    let (disk, link) = outcome.world.links().find(|(link, _)| link.from == nvme).unwrap();
    let cold: u64 = fetched.iter().map(|[cold, _]| u64::from(*cold)).sum();
    assert_eq!(link.bytes, cold * case.model.largest_block().0, "{}", disk.name);
    let held = outcome.world.memory().used(dram);
    assert_eq!(held.0, cold * case.model.largest_block().round_up(case.machine.tier(dram).granularity).0);
}
