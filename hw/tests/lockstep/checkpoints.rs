//! Checkpoints of recurrent states on real memory.

use crate::engine::engine;
use crate::timeline::Timeline;
use crate::world::{DISK, DRAM, HBM, machine};
use hw::arena::ArenaError;
use hw::content::Contents;
use hw::device::{Device, Setup, StateRoom};
use hw::lockstep::{Lockstep, LockstepError};
use hw::refusal::DeviceError;
use policy::event::{Command, MoveClass, Platform, StateChunk, StateEnd, StateForm};
use policy::model::{Layer, RecurrentState};
use policy::state_format::StateFormat;
use policy::units::Bytes;
use policy::{CheckpointId, Model, MoveId, TierId};
use proptest::prelude::*;

fn format(name: &str) -> StateFormat {
    StateFormat::named(name).unwrap()
}

fn kept(tier: TierId, name: &str) -> StateEnd {
    StateEnd::Kept(StateForm { tier, format: format(name) })
}

/// Two recurrent layers with a layer of another kind between them; their states end within pages and groups.
fn model() -> Model {
    let recurrent = |rows, columns| {
        let state = RecurrentState { numbers: rows * columns, columns, convolution: 37, chunk: 64 };
        Layer { recurrent: Some(state), ..Layer::default() }
    };
    let layers = vec![recurrent(16, 96), Layer::default(), recurrent(24, 50)];
    Model { name: "recurrent".into(), layers, ..Model::default() }
}

fn size(name: &str) -> u64 {
    model().state_bytes(format(name)).0
}

/// A device with room for so many states in 16 bits in each of three pools.
fn device(states: u64) -> Device {
    let machine = machine(1 << 16);
    let setup = Setup {
        machine: &machine,
        contents: Contents::new(&model(), 11).into(),
        copies: &[],
        budgets: &[],
        cache: Bytes::ZERO,
        tokens: 1,
        check_reads: true,
    };
    let pools = [HBM, DRAM, DISK].map(|tier| {
        let slot = Bytes(size("fp16")).round_up(machine.tier(tier).granularity);
        (tier, Bytes(slot.0 * states))
    });
    let room = StateRoom { pools: pools.into(), staged: 8 };
    let engine = engine();
    Device::new(&*engine, setup).unwrap().keeping(&*engine, &machine, &room).unwrap()
}

struct States {
    platform: Lockstep<Timeline>,
    moves: u64,
}

type Refused = LockstepError<std::convert::Infallible>;

impl States {
    fn new(states: u64) -> States {
        States { platform: Lockstep::new(Timeline::default(), device(states)), moves: 1 << 62 }
    }

    /// Moves a checkpoint in `pieces` chunks, each waited for.
    fn go(&mut self, checkpoint: u64, from: StateEnd, to: StateEnd, pieces: u64) -> Result<(), Refused> {
        self.moves += 1;
        let mut chunk = StateChunk {
            id: MoveId(self.moves),
            checkpoint: CheckpointId(checkpoint),
            from,
            to,
            class: MoveClass::Spill,
            offset: Bytes::ZERO,
            len: Bytes::ZERO,
            last: false,
        };
        let total = model().state_bytes(chunk.crossing()).0;
        let step = total.div_ceil(pieces);
        for offset in (0..total).step_by(step as usize) {
            let len = step.min(total - offset);
            chunk =
                StateChunk { offset: Bytes(offset), len: Bytes(len), last: offset + len == total, ..chunk };
            self.platform.submit(Command::MoveState(chunk))?;
            self.platform.next_event()?.unwrap();
        }
        Ok(())
    }

    fn free(&mut self, checkpoint: u64, tier: TierId) -> Result<(), Refused> {
        self.platform.submit(Command::DropState { checkpoint: CheckpointId(checkpoint), tier })
    }
}

#[test]
fn a_checkpoint_is_coded_carried_restored_and_dropped() {
    let mut states = States::new(4);
    let request = StateEnd::Request;
    states.go(1, request, kept(HBM, "fp16"), 1).unwrap();
    states.go(1, request, kept(DRAM, "int4"), 5).unwrap();
    // From there to a request, and to where it stays on its way to the next.
    states.go(1, kept(DRAM, "int4"), request, 1).unwrap();
    states.go(1, kept(HBM, "fp16"), kept(HBM, "int8"), 1).unwrap();
    states.go(1, kept(HBM, "int8"), request, 1).unwrap();
    states.free(1, HBM).unwrap();
    states.go(1, kept(DRAM, "int4"), kept(HBM, "int4"), 3).unwrap();
    // Down to the drive, coded by whoever has it.
    states.go(2, request, kept(DRAM, "fp16"), 2).unwrap();
    states.go(2, kept(DRAM, "fp16"), kept(DISK, "int8_g32"), 2).unwrap();
    states.go(3, request, kept(HBM, "fp32"), 1).unwrap();
    states.go(3, kept(HBM, "fp32"), kept(DISK, "fp8"), 4).unwrap();
    states.go(3, kept(DISK, "fp8"), request, 2).unwrap();
    let report = states.platform.finish().unwrap();
    assert_eq!(report.live_checkpoints, 6);
    assert_eq!((report.totals.moves, report.totals.mismatches, report.totals.drops), (11, 0, 1));
    let moved = |from, to| report.totals.bytes_moved[&(from, to)].0;
    assert_eq!(moved(HBM, DRAM), size("int4") + size("fp16"));
    assert_eq!(moved(DRAM, HBM), 2 * size("int4"));
    assert_eq!((moved(HBM, DISK), moved(DISK, HBM)), (size("fp8"), size("fp8")));
    assert_eq!(moved(DRAM, DISK), size("int8_g32"));
    // Each move's copy, and what is left of them at the end.
    assert_eq!(report.totals.verified_copies, 11 + 6);
}

#[test]
fn what_may_not_be_is_refused() {
    let chunk = |states: &mut States, from, to| match states.go(1, from, to, 1).unwrap_err() {
        LockstepError::Device(error) => error,
        other => panic!("{other}"),
    };
    let mut states = States::new(2);
    states.go(1, StateEnd::Request, kept(DRAM, "int4"), 1).unwrap();
    // Coded once, never again.
    let again = chunk(&mut states, kept(DRAM, "int4"), kept(HBM, "int8"));
    assert!(matches!(again, DeviceError::Chunk { .. }), "{again}");
    // Not there, not in that format, there already, no pool, no room.
    for from in [kept(HBM, "int4"), kept(DRAM, "fp16")] {
        let absent = chunk(&mut states, from, StateEnd::Request);
        assert!(matches!(absent, DeviceError::NoCheckpoint { checkpoint: 1, .. }), "{absent}");
    }
    let twice = chunk(&mut states, StateEnd::Request, kept(DRAM, "int8"));
    assert!(twice.to_string().contains("has a copy there already"), "{twice}");
    let apart = chunk(&mut states, StateEnd::Request, kept(crate::world::PEER, "int8"));
    assert!(matches!(apart, DeviceError::NoPool { .. }), "{apart}");
    for checkpoint in 2..4 {
        states.go(checkpoint, StateEnd::Request, kept(HBM, "fp16"), 1).unwrap();
    }
    let full = states.go(4, StateEnd::Request, kept(HBM, "fp32"), 1).unwrap_err();
    assert!(matches!(full, LockstepError::Device(DeviceError::Arena(ArenaError::Full { .. }))), "{full}");
    assert!(states.free(1, HBM).is_err());
    states.free(1, DRAM).unwrap();
    assert!(states.free(1, DRAM).is_err(), "twice");
    assert_eq!(states.platform.finish().unwrap().live_checkpoints, 2);
}

#[test]
fn a_copy_that_is_read_is_not_dropped_and_a_torn_one_is_not_restored() {
    let mut states = States::new(2);
    states.go(1, StateEnd::Request, kept(DRAM, "int4"), 1).unwrap();
    let total = size("int4");
    let first = StateChunk {
        id: MoveId(1 << 63),
        checkpoint: CheckpointId(1),
        from: kept(DRAM, "int4"),
        to: StateEnd::Request,
        class: MoveClass::Demand,
        offset: Bytes::ZERO,
        len: Bytes(total / 2),
        last: false,
    };
    states.platform.submit(Command::MoveState(first)).unwrap();
    let read = states.free(1, DRAM).unwrap_err();
    assert!(matches!(read, LockstepError::Device(DeviceError::CheckpointInUse { .. })), "{read}");
    let rest = StateChunk { offset: Bytes(total / 2), len: Bytes(total - total / 2), last: true, ..first };
    let other = StateChunk { to: kept(HBM, "int4"), ..rest };
    assert!(states.platform.submit(Command::MoveState(other)).is_err(), "another move's chunk");
    states.platform.submit(Command::MoveState(rest)).unwrap();
    states.platform.next_event().unwrap();
    states.platform.next_event().unwrap();
    states.free(1, DRAM).unwrap();
    assert_eq!(states.platform.finish().unwrap().live_checkpoints, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_walk_of_checkpoints_keeps_every_byte(steps in prop::collection::vec((0u64..3, 0usize..3, 0usize..3, 1u64..4), 1..24)) {
        let tiers = [HBM, DRAM, DISK];
        // Exact near by, in fewer bits further down.
        let formats = ["fp16", "int8", "int4"];
        let mut states = States::new(4);
        let mut there = std::collections::BTreeMap::new();
        for (checkpoint, from, to, pieces) in steps {
            let name = there.get(&(checkpoint, from)).copied();
            if from == to {
                if name.is_some() {
                    states.free(checkpoint, tiers[from]).unwrap();
                    there.remove(&(checkpoint, from));
                }
                continue;
            }
            match name {
                Some(name) => states.go(checkpoint, kept(tiers[from], name), StateEnd::Request, 1).unwrap(),
                None => {
                    states.go(checkpoint, StateEnd::Request, kept(tiers[from], formats[from]), pieces).unwrap();
                    there.insert((checkpoint, from), formats[from]);
                }
            }
        }
        prop_assert_eq!(states.platform.finish().unwrap().live_checkpoints, there.len() as u64);
    }
}
