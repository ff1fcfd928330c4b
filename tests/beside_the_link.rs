//! Ways to serve a block without waiting for its copy: the host computes it where it is, or its router was asked ahead.

use crate::small::Small;
use policy::event::{Command, Event, EventKind, Form, Part, Platform, Read};
use policy::registry::lookup;
use policy::{Bandwidth, BlockId, LayerId, Nanos, ProcessorId, Time};
use sim::simulate::Keep;
use std::collections::{BTreeMap, BTreeSet};

/// The host streams its blocks one command after the other, as fast as it reads, and answers a launch later.
#[test]
fn the_host_computes_one_command_after_the_other() {
    let case = Small { host: true, ..Small::default() }.case();
    let launch = case.machine.host_compute().unwrap().processor.launch;
    let mut world = case.world(false).unwrap();
    let form = Form { tier: case.home.first(), format: case.model.blocks[0].native };
    for first in [0, 2] {
        let reads = [first, first + 1].map(|block| Read { block: BlockId(block), form, tokens: 1 });
        let command = Command::Compute {
            mixers: 0..0,
            layer: LayerId(0),
            part: Part::Near(ProcessorId(0)),
            batch: [].into(),
            reads: reads.to_vec(),
            through: None,
        };
        world.submit(command).unwrap();
    }
    let mut done = Vec::new();
    while let Some(event) = world.next_event().unwrap() {
        done.extend(matches!(event.kind, EventKind::NearDone { .. }).then_some(event.at));
    }
    let bytes = case.model.blocks[0].bytes(form.format);
    let one = Bandwidth(4_000_000_000).time_for(bytes + bytes) + launch;
    assert_eq!(done, [Time(0) + one, Time(0) + one + one]);
}

/// With a host as fast as the link, misses go to both, and a step that misses two blocks takes about as long as one.
#[test]
fn misses_are_split_between_the_link_and_the_host() {
    let small =
        Small { slots: 9, experts: 16, selected: 4, hidden: 256, width: 512, link: 4.0, ..Small::default() };
    let entry = lookup("predictive").unwrap();
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    let stall = |host| {
        let case = Small { host, ..small.clone() }.case();
        let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
        let tally = outcome.orchestrator.tally();
        (tally.stall_total().as_secs_f64(), tally.hosted as f64 / (tally.demanded - tally.hits()) as f64)
    };
    let ((alone, none), (split, share)) = (stall(false), stall(true));
    assert_eq!(none, 0.0);
    assert!((0.25..0.75).contains(&share), "{share} of the misses on the host");
    assert!(split < 0.7 * alone, "{split} s of {alone} s");
}

/// Of the blocks foreseen, the stated share is chosen; none is named twice; nothing is said beyond the running token.
#[test]
fn look_ahead_is_as_good_as_it_says() {
    let small =
        Small { experts: 32, selected: 4, layers: 6, tokens: 2000, lookahead: &[90, 60], ..Small::default() };
    let case = Small { slots: 64, ..small }.case();
    let mut world = case.world(false).unwrap();
    let mut orchestrator = case.orchestrator(lookup("lru").unwrap(), &[], false).unwrap();
    let mut commands = Vec::new();
    let (mut said, mut counts) = (BTreeMap::<(u16, usize), BTreeSet<BlockId>>::new(), [(0, 0); 2]);
    let mut ahead = 0;
    while let Some(event) = world.next_event().unwrap() {
        match &event {
            Event { kind: EventKind::Foreseen { layer, routed }, .. } => {
                let blocks: BTreeSet<_> = routed.iter().map(|expert| expert.block).collect();
                assert_eq!(blocks.len(), routed.len());
                assert!(blocks.iter().all(|&block| case.model.block(block).layer == *layer));
                ahead += 1;
                said.insert((layer.0, ahead), blocks);
            }
            Event { kind: EventKind::LayerRouted { layer, routed }, .. } => {
                assert_eq!(ahead, usize::from(5 - layer.0).min(2));
                ahead = 0;
                for (ahead, count) in (1..).zip(&mut counts) {
                    if let Some(said) = said.remove(&(layer.0, ahead)) {
                        count.0 += said.len();
                        count.1 += routed.iter().filter(|expert| said.contains(&expert.block)).count();
                    }
                }
            }
            _ => {}
        }
        orchestrator.handle(event, &mut commands).unwrap();
        commands.drain(..).for_each(|command| world.submit(command).unwrap());
    }
    for ((said, right), stated) in counts.into_iter().zip([0.9, 0.6]) {
        let share = right as f64 / said as f64;
        assert!((share - stated).abs() < 0.01, "{share} of {said}, {stated} stated");
    }
    assert!(orchestrator.tally().step_time > Nanos::ZERO);
}
