//! Small models of every family: a config, and tensors under the names and in the layout of its releases.

use half::bf16;
use policy::Model;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Dxsm;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(crate) const HIDDEN: usize = 64;
pub(crate) const WIDTH: usize = 96;
pub(crate) const EXPERTS: usize = 4;
pub(crate) const LAYERS: usize = 2;

#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

/// A model and its tensors.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) model: Model,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

/// Weights, or arbitrary bytes where the type is not one of numbers; all of it follows from the name.
pub(crate) fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> Tensor {
    let seed = name.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let mut draws = Pcg64Dxsm::seed_from_u64(seed);
    let count = shape.iter().product::<usize>();
    let mut number = || ((draws.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0) * 0.05;
    let data = match dtype {
        Dtype::BF16 => (0..count).flat_map(|_| bf16::from_f32(number()).to_le_bytes()).collect(),
        Dtype::F32 => (0..count).flat_map(|_| number().to_le_bytes()).collect(),
        // Scales near one, so that no number overflows.
        _ if name.ends_with("scales") => (0..count).map(|_| 120 + (draws.next_u64() % 8) as u8).collect(),
        _ => (0..count * dtype.bitsize() / 8).map(|_| draws.next_u64() as u8).collect(),
    };
    Tensor { dtype, shape: shape.to_vec(), data }
}

fn family(name: &'static str, keys: &str, tensors: Vec<(String, Dtype, Vec<usize>)>) -> Family {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let config = format!(
        r#"{{ "model_type": "{name}", "hidden_size": {HIDDEN}, "num_hidden_layers": {LAYERS},
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
            "tie_word_embeddings": false, "torch_dtype": "bfloat16", {keys} }}"#
    );
    std::fs::write(&path, config).unwrap();
    let model = scenarios::model(path.to_str().unwrap()).unwrap().0;
    // What is no block is there, too.
    let norm = ("model.norm.weight".to_owned(), Dtype::BF16, vec![HIDDEN]);
    let made = tensors.into_iter().chain([norm]).map(|(name, dtype, shape)| {
        let tensor = tensor(&name, dtype, &shape);
        (name, tensor)
    });
    Family { name, model, tensors: made.collect() }
}

/// Experts with a tensor for each matrix: gate, up, down.
fn experts(name: &'static str, keys: &str, dtype: Dtype, part: &str, names: [&str; 3]) -> Family {
    let mut tensors = Vec::new();
    for (layer, expert) in (0..LAYERS).flat_map(|layer| (0..EXPERTS).map(move |expert| (layer, expert))) {
        for (matrix, shape) in names.iter().zip([[WIDTH, HIDDEN], [WIDTH, HIDDEN], [HIDDEN, WIDTH]]) {
            let tensor = format!("model.layers.{layer}.{part}.experts.{expert}.{matrix}.weight");
            tensors.push((tensor, dtype, shape.to_vec()));
        }
    }
    family(name, keys, tensors)
}

pub(crate) fn mixtral() -> Family {
    let keys =
        format!(r#""num_local_experts": {EXPERTS}, "num_experts_per_tok": 2, "intermediate_size": {WIDTH}"#);
    experts("mixtral", &keys, Dtype::BF16, "block_sparse_moe", ["w1", "w3", "w2"])
}

const PROJECTIONS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

fn qwen3_moe() -> Family {
    let keys = format!(
        r#""num_experts": {EXPERTS}, "num_experts_per_tok": 2, "intermediate_size": 200,
           "moe_intermediate_size": {WIDTH}, "head_dim": 16"#
    );
    experts("qwen3_moe", &keys, Dtype::BF16, "mlp", PROJECTIONS)
}

/// Published in fp32, served in bf16.
pub(crate) fn olmoe() -> Family {
    let keys = format!(r#""num_experts": {EXPERTS}, "num_experts_per_tok": 2, "intermediate_size": {WIDTH}"#);
    experts("olmoe", &keys, Dtype::F32, "mlp", PROJECTIONS)
}

pub(crate) fn gpt_oss() -> Family {
    let keys = format!(
        r#""num_local_experts": {EXPERTS}, "num_experts_per_tok": 2, "intermediate_size": {WIDTH},
           "head_dim": 16, "attention_bias": true, "sliding_window": 128,
           "quantization_config": {{ "quant_method": "mxfp4" }}"#
    );
    let mut tensors = Vec::new();
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.mlp.experts.{part}");
        let (wide, narrow) = (2 * WIDTH, HIDDEN);
        tensors.push((name("gate_up_proj_blocks"), Dtype::U8, vec![EXPERTS, wide, HIDDEN / 32, 16]));
        tensors.push((name("gate_up_proj_scales"), Dtype::U8, vec![EXPERTS, wide, HIDDEN / 32]));
        tensors.push((name("gate_up_proj_bias"), Dtype::BF16, vec![EXPERTS, wide]));
        tensors.push((name("down_proj_blocks"), Dtype::U8, vec![EXPERTS, narrow, WIDTH / 32, 16]));
        tensors.push((name("down_proj_scales"), Dtype::U8, vec![EXPERTS, narrow, WIDTH / 32]));
    }
    family("gpt_oss", &keys, tensors)
}

pub(crate) fn llama() -> Family {
    let mut tensors = Vec::new();
    for layer in 0..LAYERS {
        let shapes = [
            ("self_attn.q_proj", [HIDDEN, HIDDEN]),
            ("self_attn.k_proj", [HIDDEN / 2, HIDDEN]),
            ("self_attn.v_proj", [HIDDEN / 2, HIDDEN]),
            ("self_attn.o_proj", [HIDDEN, HIDDEN]),
            ("mlp.gate_proj", [WIDTH, HIDDEN]),
            ("mlp.up_proj", [WIDTH, HIDDEN]),
            ("mlp.down_proj", [HIDDEN, WIDTH]),
        ];
        for (part, shape) in shapes {
            tensors.push((format!("model.layers.{layer}.{part}.weight"), Dtype::BF16, shape.to_vec()));
        }
    }
    family("llama", &format!(r#""intermediate_size": {WIDTH}"#), tensors)
}

pub(crate) const FAMILIES: [fn() -> Family; 5] = [mixtral, qwen3_moe, olmoe, gpt_oss, llama];

pub(crate) fn all() -> Vec<Family> {
    FAMILIES.map(|family| family()).into()
}

pub(crate) fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let views = tensors.iter().map(|(name, tensor)| {
        (name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.data).unwrap())
    });
    serialize_to_file(views, None, path).unwrap();
}

impl Family {
    /// All tensors in one file of a new folder.
    pub(crate) fn file(&self) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write(&path, &self.tensors);
        (folder, path)
    }

    /// Three files and an index.
    pub(crate) fn sharded(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut map = BTreeMap::new();
        for shard in 0..3 {
            let file = format!("model-0000{}-of-00003.safetensors", shard + 1);
            let part = self.tensors.iter().skip(shard).step_by(3);
            let part: BTreeMap<_, _> = part.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
            map.extend(part.keys().map(|name| (name.clone(), file.clone())));
            write(&folder.path().join(&file), &part);
        }
        let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
        std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        folder
    }
}
