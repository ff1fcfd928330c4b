//! Compute near memory: what a memory's own processor takes, who is given what, and what becomes of it when the memory is taken back
//! or lost.

use crate::small::{self, Small, fast, policies};
use crate::staging::{changes, holds};
use crate::starved::controlled_by;
use policy::control::{Proposal, Victim};
use policy::event::{Command, Event, EventKind, Form, MoveClass, Part, Platform, Read, Routed};
use policy::machine::Processor;
use policy::record::Action;
use policy::score::Terms;
use policy::{BlockId, Bytes, Context, LayerId, Machine, Nanos, Orchestrator, Policy, ProcessorId, TierId};
use proptest::prelude::*;
use sim::world::World;
use sim::{Case, WorldError};
use std::collections::BTreeMap;

fn cxl(machine: &Machine) -> TierId {
    TierId(machine.tiers.iter().position(|tier| tier.name == "cxl").unwrap() as u8)
}

/// The case with all blocks in the memory that computes.
fn all_there(small: &Small) -> Case {
    let case = small.case();
    Case { home: cxl(&case.machine).into(), ..case }
}

/// When each command of a world in which nothing else happens is answered.
fn answers(case: &Case, commands: &[(ProcessorId, Vec<Read>)]) -> Vec<(ProcessorId, Nanos)> {
    let mut world = case.world(false).unwrap();
    for (by, reads) in commands {
        let (part, reads) = (Part::Near(*by), reads.clone());
        world
            .submit(Command::Compute {
                mixers: 0..0,
                layer: LayerId(0),
                part,
                batch: [].into(),
                reads,
                through: None,
            })
            .unwrap();
    }
    let mut done = Vec::new();
    while let Some(event) = world.next_event().unwrap() {
        if let EventKind::NearDone { by, .. } = event.kind {
            done.push((by, Nanos(event.at.0)));
        }
    }
    done
}

/// The operations of a block for so many tokens.
fn operations(case: &Case, tokens: u32) -> u64 {
    2 * u64::from(tokens) * case.model.blocks[0].elements()
}

#[test]
fn a_block_takes_its_bytes_or_its_operations_and_a_launch() {
    for near in [0.5, 4.0, 55.0] {
        let case = all_there(&Small { near, ..Small::default() });
        let tier = cxl(&case.machine);
        let by = case.machine.beside(tier).unwrap();
        let Processor { flops, read, launch } = case.machine.near(by).processor;
        let form = Form { tier, format: case.model.blocks[0].native };
        let bytes = case.model.blocks[0].bytes(form.format);
        let orchestrator = controlled_by(&case, Box::new(Soonest));
        let context = orchestrator.context();
        for tokens in [1, 2, 7, 40, 300] {
            let reads = vec![Read { block: BlockId(0), form, tokens }];
            let expected = read.time_for(bytes).max(flops.time_for(operations(&case, tokens))) + launch;
            assert_eq!(answers(&case, &[(by, reads)]), [(by, expected)], "{near}, {tokens}");
            let mut ways = context.costs.in_place(&context.ledger, BlockId(0), tokens);
            assert_eq!(ways.next().map(|way| (way.to, way.time)), Some((form, expected)));
        }
    }
}

/// The host from its memory and a memory's own processor work beside each other, each on one command after the other.
#[test]
fn processors_have_queues_of_their_own() {
    let case = Small { host: true, near: 4.0, ..Small::default() }.case();
    let machine = &case.machine;
    let mut commands = Vec::new();
    let mut expected = Vec::new();
    for tier in case.home.tiers().iter().copied() {
        let by = machine.beside(tier).unwrap();
        let Processor { read, launch, .. } = machine.near(by).processor;
        let blocks = (0..case.model.blocks.len() as u32).map(BlockId);
        let there: Vec<BlockId> = blocks.filter(|&block| case.home.of(block) == tier).collect();
        for (place, &block) in (1..).zip(&there[..3]) {
            let form = Form { tier, format: case.model.block(block).native };
            let one = read.time_for(case.model.block(block).bytes(form.format)) + launch;
            commands.push((by, vec![Read { block, form, tokens: 1 }]));
            expected.push((by, Nanos(one.0 * place)));
        }
    }
    expected.sort_by_key(|&(by, at)| (at, by));
    let mut answered = answers(&case, &commands);
    answered.sort_by_key(|&(by, at)| (at, by));
    assert_eq!(answered, expected);
    assert_ne!(commands[0].0, commands[3].0);
}

#[test]
fn nobody_computes_from_a_memory_that_it_is_not_beside() {
    let case = Small { host: true, near: 4.0, ..Small::default() }.case();
    let (tier, format) = (cxl(&case.machine), case.model.blocks[0].native);
    let host = ProcessorId(0);
    assert!(case.machine.near(host).of_host && !case.machine.near(host).tiers.contains(&tier));
    let form = Form { tier, format };
    let blocks = (0..case.model.blocks.len() as u32).map(BlockId);
    let block = blocks.into_iter().find(|&block| case.home.of(block) == tier).unwrap();
    let submit = |part| {
        let reads = vec![Read { block, form, tokens: 1 }];
        let command = Command::Compute {
            mixers: 0..0,
            layer: LayerId(0),
            part,
            batch: [].into(),
            reads,
            through: None,
        };
        case.world(false).unwrap().submit(command)
    };
    assert_eq!(submit(Part::Near(host)), Err(WorldError::NotBeside { by: host, form }));
    assert_eq!(submit(Part::Near(ProcessorId(9))), Err(WorldError::NoProcessor(ProcessorId(9))));
}

/// Serves each block by what keeps the running step waiting least, and gives up whatever is idle.
struct Soonest;

impl Policy for Soonest {
    fn observe(&mut self, _context: &Context, _layer: LayerId, _routed: &[Routed]) {}

    fn weigh(&mut self, _context: &Context, proposal: &Proposal) -> Option<Terms> {
        let moving = (proposal.action != Action::Skip).then(|| proposal.wait().0 as f64)?;
        Some(Terms { moving, ..Terms::default() }.sum())
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        let layers = (0..context.model.layers.len() as u16).map(LayerId);
        let block = layers.flat_map(|layer| context.ledger.idle(layer)).next()?;
        let form = context.ledger.fast_copies(block).next()?;
        Some(Victim { block, form, terms: None })
    }
}

/// What each layer step has computed in place and fetched: the tokens of every block.
#[derive(Default)]
struct Shared {
    in_place: Vec<u32>,
    fetched: Vec<u32>,
}

/// A world, and what it is told.
struct Told {
    world: World,
    tokens: BTreeMap<BlockId, u32>,
    steps: Vec<Shared>,
}

impl Platform for Told {
    type Error = WorldError;

    fn next_event(&mut self) -> Result<Option<Event>, WorldError> {
        let event = self.world.next_event()?;
        if let Some(Event { kind: EventKind::LayerRouted { routed, .. }, .. }) = &event {
            self.tokens = routed.iter().map(|expert| (expert.block, expert.tokens)).collect();
            self.steps.push(Shared::default());
        }
        Ok(event)
    }

    fn submit(&mut self, command: Command) -> Result<(), WorldError> {
        match &command {
            Command::Compute { part: Part::Near(_), reads, .. } => {
                self.steps.last_mut().unwrap().in_place.extend(reads.iter().map(|read| read.tokens));
            }
            Command::Move(chunk) if chunk.class == MoveClass::Demand && chunk.offset == Bytes::ZERO => {
                self.steps.last_mut().unwrap().fetched.push(self.tokens[&chunk.block]);
            }
            _ => {}
        }
        self.world.submit(command)
    }
}

/// Runs `Soonest`, and what every layer step did; how long the processor was busy.
fn shared(case: &Case) -> (Vec<Shared>, Orchestrator, World) {
    let mut told = Told { world: case.world(true).unwrap(), tokens: BTreeMap::new(), steps: Vec::new() };
    let mut orchestrator = controlled_by(case, Box::new(Soonest));
    policy::run(&mut orchestrator, &mut told, |_| {}).unwrap();
    (told.steps, orchestrator, told.world)
}

/// Of so many misses each side takes what lets both end first: no other split would end sooner.
#[test]
fn a_layer_is_split_where_both_end_together() {
    for near in [0.7, 1.0, 2.0, 3.0, 5.0, 9.0] {
        let small = Small { layers: 1, experts: 16, selected: 8, slots: 8, near, ..Small::default() };
        let small = Small { skew: 0.0, stickiness: 0.0, tokens: 300, traces: 1, chunk: 64 << 20, ..small };
        let case = all_there(&small);
        let (steps, orchestrator, world) = shared(&case);
        let context = orchestrator.context();
        let native = case.model.blocks[0].native;
        let fetch = context.costs.fetch(&context.ledger, BlockId(0), native).unwrap().time.0;
        let there = context.costs.in_place(&context.ledger, BlockId(0), 1).next().unwrap().time.0;
        let ends = |fetched: u64, all: u64| (fetched * fetch).max((all - fetched) * there);
        let mut split = 0;
        for step in &steps {
            let (fetched, all) =
                (step.fetched.len() as u64, (step.fetched.len() + step.in_place.len()) as u64);
            let best = (0..=all).map(|fetched| ends(fetched, all)).min().unwrap();
            assert_eq!(ends(fetched, all), best, "{near}: {fetched} of {all}, {fetch} and {there} ns");
            split += u64::from(fetched > 0 && fetched < all);
        }
        assert!(split > 100, "{near}: {split} of {} steps were split", steps.len());
        // One command a step: its blocks' bytes at its rate, and one launch.
        let commands = steps.iter().filter(|step| !step.in_place.is_empty()).count() as u64;
        let blocks: u64 = steps.iter().map(|step| step.in_place.len() as u64).sum();
        let by = case.machine.beside(cxl(&case.machine)).unwrap();
        let Processor { read, launch, .. } = case.machine.near(by).processor;
        let (_, count) = world.near().nth(by.index()).unwrap();
        let bytes = case.model.blocks[0].bytes(native);
        let expected = read.time_for(Bytes(bytes.0 * blocks)).0 + commands * launch.0;
        assert_eq!(count.blocks, blocks);
        // Each command is rounded up; copies leave its memory more than it reads.
        assert!(count.busy.0.abs_diff(expected) <= commands, "{near}: {:?}, {expected}", count.busy);
    }
}

/// With more tokens the operations of a slow processor outlast the link, and the block is fetched: from the number on that the closed
/// form says.
#[test]
fn blocks_are_fetched_from_the_tokens_on_where_that_is_quicker() {
    let (mut most, mut least) = (0, u32::MAX);
    let mut even = 0.0;
    for batch in 1..80 {
        let requests = format!("{{ closed: {{ batch: {batch} }} }}");
        let small = Small { layers: 1, experts: 1, selected: 1, slots: 1, near: 20.0, ..Small::default() };
        let (tokens, traces) = (2 * batch, batch);
        let case =
            all_there(&Small { tokens, traces, skew: 0.0, stickiness: 0.0, requests, link: 4.0, ..small });
        let (steps, orchestrator, _) = shared(&case);
        let context = orchestrator.context();
        let by = case.machine.beside(cxl(&case.machine)).unwrap();
        let Processor { flops, launch, .. } = case.machine.near(by).processor;
        let fetch =
            context.costs.fetch(&context.ledger, BlockId(0), case.model.blocks[0].native).unwrap().time;
        // max(bytes / rate, operations / flops) + launch = fetch, where operations bind.
        even = fetch.saturating_sub(launch).as_secs_f64() * flops.0 as f64 / operations(&case, 1) as f64;
        for step in &steps {
            most = step.in_place.first().map_or(most, |&tokens| most.max(tokens));
            least = step.fetched.first().map_or(least, |&tokens| least.min(tokens));
        }
    }
    assert!((10.0..70.0).contains(&even), "{even}");
    assert!(f64::from(most) <= even && even <= f64::from(least), "{most}, {even}, {least}");
    assert!(least == most + 1, "{most} in place, {least} fetched, {even}");
}

/// Blocks of a drive, with copies in the memory that computes; it shrinks, fails and comes back.
fn lent(small: &Small) -> Case {
    let mut case = small.case();
    let tier = cxl(&case.machine);
    case.home = TierId(case.machine.tiers.iter().position(|tier| tier.name == "dram").unwrap() as u8).into();
    case.budgets[case.home.first().index()] = case.machine.tier(case.home.first()).capacity;
    let room = Bytes(case.model.largest_block().0 * u64::from(small.layers * small.experts) * 2 / 3);
    case.budgets[tier.index()] = room;
    case.staging = vec![tier];
    case
}

/// A copy that was fetched ahead lands in the only slot when its block is computed in place already: the rest of the demand needs the slot.
#[test]
fn a_copy_that_came_too_late_gives_way() {
    let small = Small {
        hidden: 128,
        width: 64,
        layers: 2,
        experts: 3,
        selected: 3,
        slots: 1,
        encoded: &["int8", "bf16_packed"],
        tokens: 33,
        traces: 1,
        skew: 1.0271180252116934,
        stickiness: 0.0,
        link: 0.2,
        granularity: 1,
        chunk: 1 << 20,
        near: 1.0,
        seed: 0,
        ..Small::default()
    };
    let case = small.case();
    let run =
        small::run(&case, policy::registry::lookup("script").unwrap(), case.world(false).unwrap()).unwrap();
    assert!(run.orchestrator.tally().hosted > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]
    #[test]
    fn what_is_computed_from_lent_memory_is_computed_whatever_becomes_of_it(
        draws in prop::collection::vec((1u64..2_000, 0u8..6, 0u32..=100), 1..16),
        near in 1.0f64..50.0, slots in 4u32..16, host: bool, seed: u64,
    ) {
        let small = Small { near, slots, host, seed, traces: 4, tokens: 60, ..Small::default() };
        let mut case = lent(&small);
        case.pressure = changes(&case, cxl(&case.machine), &draws);
        for entry in policies(true) {
            holds(&case, entry, &mut policy::drive::Nobody);
        }
    }
}

/// The same on real bytes, where a copy that is read cannot be dropped.
#[test]
fn copies_that_are_read_in_place_stay_until_they_are_done_in_both_worlds() {
    let mut hosted = 0;
    for seed in 0..4u64 {
        let draws: Vec<_> =
            (0..20).map(|n| (400 + n * 37 + seed * 11, (n % 5) as u8, (n * 13 % 101) as u32)).collect();
        let small = Small { near: 20.0, slots: 5, seed, traces: 4, tokens: 60, ..Small::default() };
        let mut case = lent(&small);
        case.pressure = changes(&case, cxl(&case.machine), &draws);
        for policy in ["predictive", "hybri_moe"] {
            let entry = policy::registry::lookup(policy).unwrap();
            crate::conformance::conforms(&case, entry);
            let seen = crate::small::run(&case, entry, case.world(false).unwrap()).unwrap();
            hosted += seen.orchestrator.tally().hosted;
        }
    }
    assert!(hosted > 100, "{hosted} blocks computed in place");
}

/// The timeline and the summary say what each processor did, and the same.
#[test]
fn what_a_processor_did_is_shown() {
    let case = all_there(&Small { near: 5.0, ..Small::default() });
    let (steps, orchestrator, world) = shared(&case);
    let mut written = Vec::new();
    world.timeline().unwrap().write(&mut written).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
    let events = written["traceEvents"].as_array().unwrap();
    let track = events.iter().find(|event| event["args"]["name"] == "cxl compute").unwrap();
    let spans = events.iter().filter(|event| event["ph"] == "X" && event["tid"] == track["tid"]);
    let busy: f64 = spans.map(|span| span["dur"].as_f64().unwrap()).sum();
    let outcome = sim::Outcome { orchestrator, world };
    let near = sim::Summary::new(&case, &outcome, "soonest", 0.0).near;
    let [near] = &near[..] else { panic!("the host may not compute: {near:?}") };
    assert_eq!(near.name, "cxl");
    assert_eq!(near.blocks, steps.iter().map(|step| step.in_place.len() as u64).sum::<u64>());
    assert!(near.blocks > 100 && (near.busy_s - busy / 1e6).abs() < 1e-9, "{near:?}, {busy} us");
}

#[test]
fn a_machine_with_a_processor_beside_memory_loads_as_it_is_written() {
    let machine = scenarios::machine("cxl-pnm").unwrap();
    let tier = cxl(&machine);
    let by = machine.beside(tier).unwrap();
    let near = machine.near(by);
    assert_eq!((near.name.as_str(), near.tiers.as_slice(), near.of_host), ("cxl", &[tier][..], false));
    assert!(near.processor.read <= machine.tier(tier).read && machine.beside(fast(&machine)).is_none());
}
