//! Checkpoints of a whole model on the device's own memories: coded and carried from fast memory to the host's, and back.

use super::median;
use crate::failure::Failure;
use hw::content::Contents;
use hw::device::{Device, Setup, StateRoom};
use policy::event::{Command, MoveClass, StateChunk, StateEnd, StateForm};
use policy::machine::Class;
use policy::model::Layer;
use policy::state_format::StateFormat;
use policy::{Bytes, CheckpointId, Model, MoveId};
use scenarios::Scenario;
use serde::Serialize;

/// What a checkpoint's ways took, each the median of some, whole: coded, carried, and checked outside the time.
#[derive(Serialize)]
pub(super) struct Moved {
    format: &'static str,
    bytes: u64,
    offload_ms: f64,
    restore_ms: f64,
    /// Copies compared with what they must be, and found right.
    copies_right: u64,
}

impl Moved {
    /// For people.
    pub(super) fn text(&self) -> String {
        let Moved { format, bytes, offload_ms, restore_ms, copies_right } = self;
        let megabytes = *bytes as f64 / 1e6;
        format!(
            "{megabytes:.1} MB of all layers in {format}: {offload_ms:.0} ms to the host's memory, {restore_ms:.0} ms back; {copies_right} copies right"
        )
    }
}

/// Moves checkpoints of a scenario's model on a device, in a format.
pub(super) fn moved(
    device: &str,
    scenario: &Scenario,
    format: StateFormat,
    times: u64,
) -> Result<Moved, Failure> {
    let engine = hw::open::open(device, &std::env::temp_dir()).map_err(Failure::refused)?;
    // Its states, and nothing that a step would read beside them.
    let states = |layer: &Layer| Layer { recurrent: layer.recurrent, ..Layer::default() };
    let layers = scenario.model.layers.iter().map(states).collect();
    let model = Model { name: scenario.model.name.clone(), layers, ..Model::default() };
    let machine = &scenario.machine;
    let host = machine
        .tiers_of(Class::Staged)
        .next()
        .ok_or_else(|| Failure::failed("the machine has no host memory"))?;
    let bytes = model.state_bytes(format);
    let setup = Setup {
        machine,
        contents: Contents::new(&model, scenario.seed).into(),
        copies: &[],
        budgets: &vec![Bytes::ZERO; machine.tiers.len()],
        cache: Bytes::ZERO,
        tokens: 1,
        check_reads: false,
    };
    let room = StateRoom { pools: vec![(host, bytes)], staged: 1 };
    let device = Device::new(&*engine, setup).and_then(|device| device.keeping(&*engine, machine, &room));
    let mut device = device.map_err(Failure::failed)?;
    let kept = StateEnd::Kept(StateForm { tier: host, format });
    let (mut out, mut back) = (Vec::new(), Vec::new());
    for turn in 0..times {
        let checkpoint = CheckpointId(turn);
        for (number, from, to, took) in
            [(0, StateEnd::Request, kept, &mut out), (1, kept, StateEnd::Request, &mut back)]
        {
            let (id, offset, class) = (MoveId(2 * turn + number), Bytes::ZERO, MoveClass::Demand);
            let chunk = StateChunk { id, checkpoint, from, to, class, offset, len: bytes, last: true };
            device.submit(&Command::MoveState(chunk)).map_err(Failure::failed)?;
            took.push(device.wait(id).map_err(Failure::failed)?.took.0 as f64 / 1e6);
        }
        device.submit(&Command::DropState { checkpoint, tier: host }).map_err(Failure::failed)?;
    }
    Ok(Moved {
        format: format.name(),
        bytes: bytes.0,
        offload_ms: median(out),
        restore_ms: median(back),
        copies_right: device.totals().verified_copies,
    })
}
