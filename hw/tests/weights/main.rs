//! Published weights become blocks, and files that are wrong in any way become errors.

mod bad;
mod family;
mod published;

use family::{EXPERTS, Family, HIDDEN, Tensor, WIDTH};
use half::bf16;
use hw::codec;
use hw::content::Contents;
use hw::weights::Weights;
use policy::{BlockId, FormatId};

/// A matrix of gpt-oss as the transformers library expands it (`convert_moe_packed_tensors`): the low half of a byte is
/// the earlier element, and the scale is a power of two with a bias of 127.
fn expand(blocks: &Tensor, scales: &Tensor, expert: usize, rows: usize, columns: usize) -> Vec<Vec<f32>> {
    const LUT: [f32; 16] =
        [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
    let groups = columns / 32;
    let row = |row: usize| {
        let group = |group: usize| {
            let at = (expert * rows + row) * groups + group;
            let scale = 2f32.powi(i32::from(scales.data[at]) - 127);
            let bytes = blocks.data[at * 16..][..16].to_vec();
            bytes
                .into_iter()
                .flat_map(move |byte| [byte & 15, byte >> 4].map(|code| LUT[code as usize] * scale))
        };
        (0..groups).flat_map(group).collect()
    };
    (0..rows).map(row).collect()
}

/// The numbers of a block, put together from the tensors in the plainest way.
fn expected(family: &Family, layer: usize, index: usize) -> Vec<f32> {
    let tensor = |part: &str| &family.tensors[&format!("model.layers.{layer}.{part}")];
    let numbers = |part: &str| -> Vec<f32> {
        let data = &tensor(part).data;
        match tensor(part).dtype {
            safetensors::Dtype::F32 => {
                let exact = data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                exact.map(|number| bf16::from_f32(number).to_f32()).collect()
            }
            _ => data.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        }
    };
    let three = |part: &str, names: [&str; 3]| {
        names.map(|name| numbers(&format!("{part}.experts.{index}.{name}.weight"))).concat()
    };
    match family.name {
        "mixtral" => three("block_sparse_moe", ["w1", "w3", "w2"]),
        "gpt_oss" => {
            let part = |name: &str| tensor(&format!("mlp.experts.{name}"));
            let both =
                expand(part("gate_up_proj_blocks"), part("gate_up_proj_scales"), index, 2 * WIDTH, HIDDEN);
            let down = expand(part("down_proj_blocks"), part("down_proj_scales"), index, HIDDEN, WIDTH);
            let (gate, up) = (both.iter().step_by(2), both.iter().skip(1).step_by(2));
            gate.chain(up).chain(&down).flatten().copied().collect()
        }
        "llama" => {
            let parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
            let parts = parts.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
            let all: Vec<f32> = parts.flat_map(|part| numbers(&format!("{part}.weight"))).collect();
            let layer = &family.model.layers[layer];
            let size =
                |index: u32| family.model.block(BlockId(layer.first_block.0 + index)).elements() as usize;
            let begin = (0..index as u32).map(size).sum::<usize>();
            all[begin..][..size(index as u32)].to_vec()
        }
        _ => three("mlp", ["gate_proj", "up_proj", "down_proj"]),
    }
}

fn decoded(family: &Family, weights: &Weights, id: BlockId) -> Vec<f32> {
    let block = family.model.block(id);
    let mut values = vec![0.0; block.elements() as usize];
    codec::decode(block.native, &weights.native(id).unwrap(), &block.matrices, &mut values).unwrap();
    values
}

#[test]
fn blocks_of_every_family_have_the_numbers_of_their_tensors_in_one_file_or_many() {
    for family in family::all() {
        let ((_folder, file), sharded) = (family.file(), family.sharded());
        let index = sharded.path().join("model.safetensors.index.json");
        let without_index = family.sharded();
        std::fs::remove_file(without_index.path().join("model.safetensors.index.json")).unwrap();
        for path in [&file, file.parent().unwrap(), sharded.path(), &index, without_index.path()] {
            let weights = Weights::open(path, &family.model).unwrap();
            for (number, layer) in family.model.layers.iter().enumerate() {
                assert!(layer.blocks as usize >= EXPERTS, "{}", family.name);
                for index in 0..layer.blocks {
                    let got = decoded(&family, &weights, BlockId(layer.first_block.0 + index));
                    let expected = expected(&family, number, index as usize);
                    assert!(got == expected, "{} L{number}/E{index} from {}", family.name, path.display());
                }
            }
        }
    }
}

#[test]
fn contents_from_files_are_coded_and_checked_like_made_up_ones() {
    let family = family::mixtral();
    let (_folder, file) = family.file();
    let weights = Weights::open(&file, &family.model).unwrap();
    let native = weights.native(BlockId(5)).unwrap();
    let contents = Contents::published(&family.model, &file, 1).unwrap();
    let (bf16, int8) = (FormatId::named("bf16").unwrap(), FormatId::named("int8").unwrap());
    assert_eq!(contents.bytes(BlockId(5), bf16).unwrap(), native);
    let coded = contents.bytes(BlockId(5), int8).unwrap();
    let block = family.model.block(BlockId(5));
    let mut expected = vec![0; block.bytes(int8).0 as usize];
    codec::transcode(bf16, &native, int8, &block.matrices, &mut expected).unwrap();
    assert_eq!(coded, expected);
    let checksum = contents.checksum(BlockId(5), int8).unwrap();
    assert_eq!(checksum, hw::content::Checksum::of(&expected));
    assert_ne!(checksum, contents.checksum(BlockId(6), int8).unwrap());
}
