//! Any bytes are the weights of a model or an error that can be printed; what is taken gives blocks of the right size.

#![no_main]

use hw::weights::Weights;
use libfuzzer_sys::fuzz_target;
use policy::{BlockId, Model};
use std::sync::LazyLock;

/// Tiny models whose tensors are named in the three ways there are.
static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let families = [
        r#""model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 1"#,
        r#""model_type": "gpt_oss", "num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8,
           "sliding_window": 128, "quantization_config": { "quant_method": "mxfp4" }"#,
        r#""model_type": "llama""#,
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    let model = |family: &str| {
        let config = format!(
            r#"{{ {family}, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 32,
                "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": false,
                "torch_dtype": "bfloat16" }}"#
        );
        std::fs::write(&path, config).expect("a file");
        scenarios::model(&path.display().to_string()).expect("a model").0
    };
    families.iter().map(|family| model(family)).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).expect("a file");
    for model in MODELS.iter() {
        match Weights::open(&path, model) {
            Err(wrong) => assert!(!wrong.to_string().is_empty()),
            Ok(weights) => {
                for (number, block) in model.blocks.iter().enumerate() {
                    let native = weights.native(BlockId(number as u32)).expect("checked when opened");
                    assert_eq!(native.len() as u64, block.bytes(block.native).0);
                }
            }
        }
    }
});
