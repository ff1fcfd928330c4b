//! Any legal sequence of commands leaves the copies that it implies, with the right bytes, and never lacks memory
//! that a ledger of bytes has.

use crate::engine::is_accelerator;
use crate::world::{self, DISK, DRAM, GRANULARITY, HBM, PEER, World, form_of};
use policy::event::{EncodeAt, EventKind, Form, Platform};
use policy::units::Bytes;
use policy::{FormatId, MoveId, TierId};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::collections::BTreeMap;

const HBM_BYTES: u64 = 30_000;

#[derive(Clone, Debug)]
enum Step {
    Begin { source: Index, tier: TierId, format: Option<FormatId>, at: EncodeAt },
    Continue { which: Index, len: u64 },
    Cancel(Index),
    Drop(Index),
    Compute(Vec<Index>),
    Next,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let formats = ["bf16", "bf16_packed", "fp8_e4m3", "int8", "int8_g32", "mxfp4", "int4_g32", "int4_g128"];
    let index = any::<Index>;
    let begin = (
        index(),
        select(vec![HBM, DRAM, DISK, PEER]),
        prop::option::of(select(formats.map(form_of).to_vec())),
        select(vec![EncodeAt::Source, EncodeAt::Destination]),
    );
    let step = prop_oneof![
        8 => begin.prop_map(|(source, tier, format, at)| Step::Begin { source, tier, format, at }),
        6 => (index(), 1u64..20_000).prop_map(|(which, len)| Step::Continue { which, len }),
        1 => index().prop_map(Step::Cancel),
        2 => index().prop_map(Step::Drop),
        2 => prop::collection::vec(index(), 1..4).prop_map(Step::Compute),
        6 => Just(Step::Next),
    ];
    prop::collection::vec(step, 100..400)
}

type Copy = (u32, Form);

#[derive(Clone, Copy)]
struct Moving {
    source: Copy,
    to: Form,
    at: EncodeAt,
    next: u64,
    total: u64,
    /// Chunks submitted and not reported.
    outstanding: u64,
}

/// What a controller knows: enough to submit legal commands only.
struct Ledger {
    world: World,
    published: Vec<Copy>,
    moving: BTreeMap<u64, Moving>,
    computing: bool,
    next_id: u64,
    moves: u64,
}

impl Ledger {
    fn new() -> Ledger {
        let published = world::copies().into_iter().map(|(block, form)| (block.0, form)).collect();
        let world = World::new(HBM_BYTES);
        Ledger { world, published, moving: BTreeMap::new(), computing: false, next_id: 0, moves: 0 }
    }

    fn take(&mut self, step: Step) {
        let open: Vec<u64> =
            self.moving.iter().filter(|(_, m)| m.next < m.total).map(|(id, _)| *id).collect();
        let pick = |which: Index| (!open.is_empty()).then(|| *which.get(&open));
        match step {
            Step::Begin { source, tier, format, at } => {
                let source = *source.get(&self.published);
                // Half of all moves keep their format.
                let format = format.unwrap_or(source.1.format);
                self.begin(source, Form { tier, format }, at);
            }
            Step::Continue { which, len } => pick(which).into_iter().for_each(|id| self.go_on(id, len)),
            Step::Cancel(which) => {
                if let Some(id) = pick(which) {
                    self.world.submit(world::cancel(id)).unwrap();
                    self.moving.remove(&id);
                }
            }
            Step::Drop(which) => self.drop_copy(*which.get(&self.published)),
            Step::Compute(which) => {
                let reads: Vec<Copy> = which.iter().map(|which| *which.get(&self.published)).collect();
                if !self.computing {
                    self.world.submit(world::compute_command(&reads)).unwrap();
                    self.computing = true;
                }
            }
            Step::Next => {
                self.see();
            }
        }
    }

    /// Every copy that takes memory.
    fn held(&self) -> impl Iterator<Item = Copy> + '_ {
        let coming = self.moving.values().map(|moving| (moving.source.0, moving.to));
        self.published.iter().copied().chain(coming)
    }

    fn fits(&self, copy: Copy) -> bool {
        let rounded = |copy: Copy| world::bytes(copy.0, copy.1.format).round_up(Bytes(GRANULARITY));
        let held: Bytes = self.held().filter(|held| held.1.tier == HBM).map(rounded).sum();
        copy.1.tier != HBM || held + rounded(copy) <= Bytes(HBM_BYTES).round_up(Bytes(GRANULARITY))
    }

    fn begin(&mut self, source: Copy, to: Form, at: EncodeAt) {
        let link = (source.1.tier, to.tier);
        let linked = link.0 == link.1 || world::LINKS.contains(&link);
        let coded = source.1.format != to.format;
        let lossless = !coded || source.1.format.keeps(form_of("bf16"));
        let copy = (source.0, to);
        if linked && lossless && self.held().all(|other| other != copy) && self.fits(copy) {
            let crossing = if coded && at == EncodeAt::Destination { source.1 } else { to };
            let total = world::bytes(source.0, crossing.format).0;
            self.moving.insert(self.next_id, Moving { source, to, at, next: 0, total, outstanding: 0 });
            self.go_on(self.next_id, 3000);
            self.next_id += 1;
        }
    }

    fn go_on(&mut self, id: u64, len: u64) {
        let Some(moving) = self.moving.get_mut(&id) else { return };
        let offset = moving.next;
        moving.next = moving.total.min(offset + len);
        moving.outstanding += 1;
        let Moving { source: (block, from), to, at, next, total, .. } = *moving;
        let chunk = world::chunk(id, block, from, to, at, offset, next - offset, next == total);
        self.world.submit(chunk).unwrap();
    }

    fn drop_copy(&mut self, copy: Copy) {
        let whole = |other: &Copy| other.0 == copy.0 && other.1.format.keeps(form_of("bf16"));
        let last = whole(&copy) && self.published.iter().filter(|other| whole(other)).count() == 1;
        let read = self.moving.values().any(|moving| moving.source == copy && moving.next < moving.total);
        if !last && !read && !self.computing {
            self.world.submit(world::drop_copy(copy.0, copy.1)).unwrap();
            self.published.retain(|other| *other != copy);
        }
    }

    /// Sees the next event, if there is one.
    fn see(&mut self) -> bool {
        let Some(event) = self.world.platform.next_event().unwrap() else { return false };
        match event.kind {
            EventKind::LayerDone { .. } => self.computing = false,
            EventKind::ChunkDone { id: MoveId(id), .. } => {
                let moving = self.moving.get_mut(&id).expect("moves that were given up are not answered");
                moving.outstanding -= 1;
                if moving.next == moving.total && moving.outstanding == 0 {
                    self.published.push((moving.source.0, moving.to));
                    self.moving.remove(&id);
                    self.moves += 1;
                }
            }
            _ => unreachable!("nothing else was asked for"),
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if is_accelerator() { 24 } else { 48 }))]
    #[test]
    fn contents_are_right_and_memory_is_there_after_any_legal_commands(steps in steps()) {
        let mut ledger = Ledger::new();
        steps.into_iter().for_each(|step| ledger.take(step));
        while ledger.see() {}
        let report = ledger.world.finish().unwrap();
        prop_assert_eq!(report.totals.moves, ledger.moves);
        prop_assert_eq!(report.live_copies, ledger.published.len() as u64);
        prop_assert_eq!(report.totals.mismatches, 0);
    }
}
