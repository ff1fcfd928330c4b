//! Models of the catalogue against the tensors of their releases, as their model pages on Hugging Face list them. The
//! files are sparse: headers as published, and no numbers.

use hw::weights::Weights;
use policy::{BlockId, Bytes};
use std::fs::File;
use std::io::Write;

/// What a release has in every layer, and for each of `experts` where the name says so.
struct Release {
    model: &'static str,
    layers: usize,
    experts: usize,
    dtype: (&'static str, u64),
    tensors: &'static [(&'static str, &'static [u64])],
    /// Bytes of the first block.
    block: u64,
}

const RELEASES: [Release; 4] = [
    Release {
        model: "mixtral-8x7b",
        layers: 32,
        experts: 8,
        dtype: ("BF16", 2),
        tensors: &[
            ("block_sparse_moe.experts.{}.w1.weight", &[14336, 4096]),
            ("block_sparse_moe.experts.{}.w2.weight", &[4096, 14336]),
            ("block_sparse_moe.experts.{}.w3.weight", &[14336, 4096]),
        ],
        block: 3 * 14336 * 4096 * 2,
    },
    Release {
        model: "qwen3-30b-a3b",
        layers: 48,
        experts: 128,
        dtype: ("BF16", 2),
        tensors: &[
            ("mlp.experts.{}.down_proj.weight", &[2048, 768]),
            ("mlp.experts.{}.gate_proj.weight", &[768, 2048]),
            ("mlp.experts.{}.up_proj.weight", &[768, 2048]),
        ],
        block: 3 * 2048 * 768 * 2,
    },
    Release {
        model: "gpt-oss-20b",
        layers: 24,
        experts: 1,
        dtype: ("U8", 1),
        tensors: &[
            ("mlp.experts.down_proj_blocks", &[32, 2880, 90, 16]),
            ("mlp.experts.down_proj_scales", &[32, 2880, 90]),
            ("mlp.experts.gate_up_proj_blocks", &[32, 5760, 90, 16]),
            ("mlp.experts.gate_up_proj_scales", &[32, 5760, 90]),
        ],
        block: 13_219_200,
    },
    Release {
        model: "llama-3.1-8b",
        layers: 32,
        experts: 1,
        dtype: ("BF16", 2),
        tensors: &[
            ("mlp.down_proj.weight", &[4096, 14336]),
            ("mlp.gate_proj.weight", &[14336, 4096]),
            ("mlp.up_proj.weight", &[14336, 4096]),
            ("self_attn.k_proj.weight", &[1024, 4096]),
            ("self_attn.o_proj.weight", &[4096, 4096]),
            ("self_attn.q_proj.weight", &[4096, 4096]),
            ("self_attn.v_proj.weight", &[1024, 4096]),
        ],
        // Matrices of a dense layer are cut to at most an eighth of it: the queries whole.
        block: 4096 * 4096 * 2,
    },
];

impl Release {
    /// A file with its header, and a hole for its data.
    fn write(&self, file: &mut File) {
        let mut header = serde_json::Map::new();
        let mut at = 0;
        for layer in 0..self.layers {
            for (template, shape) in self.tensors {
                for expert in 0..if template.contains("{}") { self.experts } else { 1 } {
                    let name = template.replace("{}", &expert.to_string());
                    let end = at + shape.iter().product::<u64>() * self.dtype.1;
                    let entry = serde_json::json!({
                        "dtype": self.dtype.0, "shape": shape, "data_offsets": [at, end]
                    });
                    header.insert(format!("model.layers.{layer}.{name}"), entry);
                    at = end;
                }
            }
        }
        let header = serde_json::Value::Object(header).to_string();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len(8 + header.len() as u64 + at).unwrap();
    }
}

#[test]
fn releases_have_the_tensors_that_the_catalogue_s_models_ask_for() {
    for release in RELEASES {
        let model = scenarios::model(release.model).unwrap().0;
        let mut file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
        release.write(file.as_file_mut());
        let weights = Weights::open(file.path(), &model).unwrap_or_else(|error| panic!("{error}"));
        let first = model.block(BlockId(0));
        assert_eq!(first.bytes(first.native), Bytes(release.block), "{}", model.name);
        // The last block is read too, where that is a matter of milliseconds.
        if release.block < 1 << 26 {
            let last = model.blocks.last().unwrap();
            let read = weights.native(BlockId(model.blocks.len() as u32 - 1)).unwrap().len() as u64;
            assert_eq!(Bytes(read), last.bytes(last.native), "{}", model.name);
        }
    }
}
