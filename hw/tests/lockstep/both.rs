//! What the host computes and what the accelerator does, side by side.

use crate::engine::{engine, is_accelerator};
use crate::world::{form_of, machine, model_of};
use hw::content::Contents;
use hw::device::{Device, Setup};
use hw::engine::Engine;
use hw::host::Host;
use policy::event::{Command, Form, Part, Read, Slice};
use policy::model::{Block, BlockKind, Matrix};
use policy::units::Bytes;
use policy::{BlockId, LayerId, RequestId, TierId};

const FORMATS: [&str; 10] = [
    "bf16",
    "fp16",
    "fp32",
    "fp8_e4m3",
    "fp8_e4m3_b128",
    "int8",
    "int8_g32",
    "mxfp4",
    "int4_g32",
    "bf16_packed",
];

/// A gated expert whose shapes the fused kernels take, one whose shapes they do not, and a block of plain products.
fn blocks() -> Vec<Block> {
    let shapes: [&[(u64, u64)]; 3] =
        [&[(96, 64), (96, 64), (64, 96)], &[(37, 51), (37, 51), (51, 37)], &[(40, 96), (8, 64)]];
    let block = |(index, shape): (usize, &[(u64, u64)])| Block {
        kind: if index < 2 { BlockKind::Expert } else { BlockKind::Dense },
        layer: LayerId(0),
        index: index as u32,
        matrices: shape.iter().map(|&(rows, columns)| Matrix { rows, columns }).collect(),
        native: form_of("bf16"),
        mixed: None,
        recipe: None,
    };
    shapes.into_iter().enumerate().map(block).collect()
}

/// What every block gives in every format, all of one layer step at once.
fn digests(engine: &dyn Engine, tokens: u32) -> Vec<f32> {
    let fast = |name| Form { tier: TierId(0), format: form_of(name) };
    let copies: Vec<(BlockId, Form)> =
        (0..3).flat_map(|block| FORMATS.map(|name| (BlockId(block), fast(name)))).collect();
    let setup = Setup {
        machine: &machine(1 << 20),
        contents: Contents::new(&model_of(blocks()), 3).into(),
        copies: &copies,
        budgets: &[],
        cache: Bytes::ZERO,
        tokens,
        check_reads: true,
    };
    let mut device = Device::new(engine, setup).unwrap();
    let reads = copies.iter().map(|&(block, form)| Read { block, form, tokens }).collect();
    let batch = [Slice { request: RequestId(0), cached: 5, tokens, rank: 0 }].into();
    let (layer, part, through) = (LayerId(0), Part::Experts, None);
    device.submit(&Command::Compute { mixers: 0..0, layer, part, batch, reads, through }).unwrap();
    device.wait_compute(Part::Experts).unwrap().digests
}

#[test]
fn an_accelerator_computes_what_the_host_does() {
    if !is_accelerator() {
        return;
    }
    for tokens in [1, 8, 19] {
        let host = digests(&Host::new(&std::env::temp_dir()), tokens);
        let accelerator = digests(&*engine(), tokens);
        assert_eq!(accelerator.len(), host.len());
        for (index, (ours, host)) in accelerator.iter().zip(&host).enumerate() {
            let format = FORMATS[index % FORMATS.len()];
            // The host expands a packed copy for one vector only.
            if format == "bf16_packed" && tokens > 1 {
                continue;
            }
            assert!(
                (ours - host).abs() <= host * 1e-4,
                "block {} in {format}: {ours} for {host}",
                index / FORMATS.len()
            );
        }
    }
}
