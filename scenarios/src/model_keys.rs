//! The keys of a Hugging Face `config.json` that the importer reads, for the schema. `model` takes any other key too.

use crate::keys::Type::{Flag, List, Name, Text, Whole};
use crate::keys::{Key, Table};
use crate::phases::{IMAGE_TYPE, PHASES, PHASES_TYPE};

/// A model's config.
pub(crate) static MODEL: Table = Table {
    name: "model",
    about: "A model: the keys of its Hugging Face config.json, or `gguf` alone",
    open: true,
    keys: &[
        Key::optional("gguf", Text, "model.gguf", "A GGUF file that is read instead of a config"),
        Key::required(
            "model_type",
            Text,
            "mixtral",
            "The family, as the transformers library calls it; `pipeline` for one that is its phases",
        ),
        Key::optional("hidden_size", Whole(1, u32::MAX as u64), "4096", "Width of the residual stream"),
        Key::optional("num_hidden_layers", Whole(1, u32::MAX as u64), "32", "Layers"),
        Key::optional("vocab_size", Whole(1, u32::MAX as u64), "32000", "Entries of the vocabulary"),
        Key::optional(
            "num_attention_heads",
            Whole(1, u32::MAX as u64),
            "32",
            "Query heads; a model that does not attend has none",
        ),
        Key::optional(
            "num_key_value_heads",
            Whole(1, u32::MAX as u64),
            "8",
            "Key-value heads; left out, as many as query heads",
        ),
        Key::optional(
            "intermediate_size",
            Whole(1, u32::MAX as u64),
            "14336",
            "Width of a dense feed-forward layer, or of an expert",
        ),
        Key::optional(
            "moe_intermediate_size",
            Whole(1, u32::MAX as u64),
            "768",
            "Width of an expert, where it has a key of its own",
        ),
        Key::optional("num_local_experts", Whole(1, u32::MAX as u64), "8", "Routed experts of a layer"),
        Key::optional(
            "num_experts_per_tok",
            Whole(1, u32::MAX as u64),
            "2",
            "Routed experts a token selects",
        ),
        Key::optional(
            "torch_dtype",
            Name(|| vec!["bfloat16", "float16", "float32"]),
            "bfloat16",
            "The published type",
        ),
        Key::optional("tie_word_embeddings", Flag, "false", "The output head shares the embedding"),
        Key::optional("sliding_window", Whole(1, u32::MAX as u64), "4096", "The attention window, in tokens"),
        Key::optional(
            PHASES,
            PHASES_TYPE,
            "{ encoder: { tokens: 77, layers: [{ blocks: [{ rows: 768, columns: 768 }] }] } }",
            "What a request goes through: before the decoder, or in place of one",
        ),
        Key::optional("image", IMAGE_TYPE, "{ width: 1024, height: 1024 }", "The size of images"),
        Key::optional("layer_types", List(&Text), "[full_attention]", "The attention of each layer"),
    ],
};
