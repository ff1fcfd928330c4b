//! Blocks that are made by their recipes: the right bytes in any format and any chunks, without a copy anywhere.

use crate::engine::engine;
use crate::world::{DRAM, HBM, block, bytes, chunk, drop_copy, form, form_of, machine, model_of};
use hw::content::Contents;
use hw::device::{Device, Setup};
use hw::refusal::DeviceError;
use policy::event::{Command, EncodeAt, Source};
use policy::model::{Block, Model};
use policy::recipe::Recipe;
use policy::{BlockId, MoveId};
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::Arc;

fn model(native: &str) -> Model {
    let recipe = Some(Recipe { rank: 5 });
    let of = |index| Block { native: form_of(native), recipe, ..block(index) };
    model_of((0..3).map(of).collect())
}

/// A device whose blocks have no copies.
fn device(native: &str) -> Device {
    let setup = Setup {
        machine: &machine(100_000),
        contents: Arc::new(Contents::new(&model(native), 7)),
        copies: &[],
        budgets: &[],
        cache: Default::default(),
        tokens: 1,
        check_reads: true,
    };
    Device::new(&*engine(), setup).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_block_is_made_in_any_chunks_and_any_format(
        native in select(vec!["bf16", "fp16", "fp32"]),
        to in select(vec!["bf16", "fp16", "fp8_e4m3", "int8", "mxfp4"]),
        cuts in prop::collection::vec(1u64..12_000, 0..5),
    ) {
        let mut device = device(native);
        let to = form(HBM, to);
        let total = model(native).blocks[1].bytes(form_of(native)).0;
        let mut offset = 0;
        for len in cuts.into_iter().chain([u64::MAX]) {
            let len = len.min(total - offset);
            if len == 0 {
                break;
            }
            let last = offset + len == total;
            device.submit(&chunk(3, 1, Source::Recipe, to, EncodeAt::Destination, offset, len, last)).unwrap();
            offset += len;
            // The bytes of the whole copy are compared with the block's when it is published.
            let report = device.wait(MoveId(3)).unwrap();
            prop_assert_eq!(report.published.is_some(), last);
        }
        prop_assert_eq!(device.published().collect::<Vec<_>>(), [(BlockId(1), to)]);
        prop_assert_eq!(device.audit().unwrap().len(), 1);
        device.submit(&drop_copy(1, to)).unwrap();
        prop_assert_eq!(device.published().count(), 0);
    }
}

#[test]
fn a_recipe_given_up_leaves_nothing_behind() {
    let mut device = device("bf16");
    let to = form(HBM, "bf16");
    let half = bytes(0, to.format).0 / 2;
    for id in 0..40 {
        device.submit(&chunk(id, 0, Source::Recipe, to, EncodeAt::Destination, 0, half, false)).unwrap();
        device.submit(&Command::Cancel { id: MoveId(id) }).unwrap();
    }
    device.audit().unwrap();
    assert_eq!(device.held(HBM).unwrap().0, 0);
}

#[test]
fn a_recipe_is_followed_only_in_fast_memory_and_only_where_there_is_one() {
    let all = bytes(0, form_of("bf16")).0;
    let submit = |mut device: Device, tier| {
        let to = form(tier, "bf16");
        device.submit(&chunk(0, 0, Source::Recipe, to, EncodeAt::Destination, 0, all, true))
    };
    assert!(matches!(submit(device("bf16"), DRAM), Err(DeviceError::Chunk { .. })));
    assert!(matches!(submit(crate::world::device(100_000, 7), HBM), Err(DeviceError::Chunk { .. })));
}
