//! Models from GGUF headers: what llama.cpp's own package wrote is read to the byte, and hostile headers are refused.

use policy::model::BlockKind;
use policy::{Bytes, FormatId, Model};
use proptest::prelude::*;
use scenarios::ModelFacts;
use std::path::{Path, PathBuf};

/// Headers that `gguf/write.py` wrote, with no tensor behind them.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf").join(name)
}

fn read(path: &Path) -> Result<(Model, ModelFacts), String> {
    scenarios::model(&path.display().to_string()).map_err(|wrong| wrong.to_string())
}

fn written(name: &str) -> (Model, ModelFacts) {
    read(&fixture(name)).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// What a header of these bytes is refused for; panics if it is not.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    read(&path).expect_err("a refusal")
}

fn format(name: &str) -> FormatId {
    FormatId::named(name).unwrap()
}

#[test]
fn experts_of_mixed_types_take_their_exact_bytes() {
    let (model, facts) = written("qwen3moe-q4_k_m.gguf");
    // The sums that write.py prints.
    assert_eq!(facts.managed_bytes + facts.resident_bytes, Bytes(1_940_326_400));
    assert_eq!(facts.parameters, 3_114_814_464);
    assert_eq!((facts.layers, facts.blocks_per_layer, facts.selected), (4, 128, 8));
    assert_eq!((facts.name.as_str(), facts.native), ("qwen3moe-q4_k_m", "q4_k"));
    assert_eq!(facts.kv_bytes_per_token, Bytes(4 * 4 * (128 + 128) * 2));
    // Gate and up in Q4_K, 144 bytes for 256 weights; down in Q6_K, 210 bytes, or in Q4_K too.
    let groups = 768 * 2048 / 256;
    let (mixed, plain) = (&model.blocks[0], &model.blocks[128]);
    assert_eq!((mixed.kind, mixed.native), (BlockKind::Expert, format("q4_k")));
    assert_eq!(mixed.bytes(mixed.native), Bytes(groups * (2 * 144 + 210)));
    assert_eq!(mixed.bytes(format("q6_k")), Bytes(3 * groups * 210));
    assert_eq!((plain.mixed, plain.bytes(plain.native)), (None, Bytes(groups * 3 * 144)));
    assert_eq!((plain.elements(), plain.rows()), (3 * 768 * 2048, 768 + 768 + 2048));
    assert_eq!(model.head_read, Bytes(151_936 * 2048 / 256 * 210));
    // Attention and router of a token, and not the norms.
    assert_eq!(model.layers[0].flops_per_token, 2 * (2048 * (2 * 4096 + 2 * 512) + 128 * 2048));
}

#[test]
fn gpt_oss_has_the_blocks_of_its_config() {
    let (model, facts) = written("gpt-oss-mxfp4.gguf");
    let (config, published) = scenarios::model("gpt-oss-20b").unwrap();
    assert_eq!(facts.managed_bytes + facts.resident_bytes, Bytes(2_136_096_512));
    assert_eq!((facts.block_bytes, facts.native), (published.block_bytes, published.native));
    for (layer, same) in model.layers.iter().zip(&config.layers) {
        assert_eq!((layer.window, layer.kv_per_token), (same.window, same.kv_per_token));
        assert_eq!((layer.blocks, layer.selected), (same.blocks, same.selected));
        assert_eq!(layer.flops_per_token, same.flops_per_token);
    }
}

#[test]
fn a_model_in_parts_is_one_and_a_dense_one_is_cut_into_shards() {
    let (model, facts) = written("llama-00001-of-00002.gguf");
    assert_eq!(facts.managed_bytes + facts.resident_bytes, Bytes(863_559_936 + 137_101_312));
    assert_eq!((facts.name.as_str(), facts.layers, facts.blocks_per_layer), ("llama", 2, 13));
    assert_eq!(facts.kv_bytes_per_token, Bytes(2 * 2 * 8 * 128 * 2));
    let (config, _) = scenarios::model("llama-3.1-8b").unwrap();
    let shapes = |model: &Model| {
        let mut shapes: Vec<_> =
            model.blocks[..13].iter().map(|b| (b.kind, b.elements(), b.rows())).collect();
        shapes.sort();
        shapes
    };
    assert_eq!(shapes(&model), shapes(&config));
    let formats: Vec<_> = model.blocks[..13].iter().map(|block| block.native.name()).collect();
    assert_eq!(formats.iter().filter(|&&name| name == "iq4_xs").count(), 3);
    assert_eq!(formats.iter().filter(|&&name| name == "q6_k").count(), 1 + 3);
    assert!(model.layers.iter().all(|layer| layer.resident == Bytes(2 * 4096 * 4)));
}

#[test]
fn parts_are_named_as_they_were_split_and_all_there() {
    let second = read(&fixture("llama-00002-of-00002.gguf")).unwrap_err();
    assert!(second.contains("part 2 of 2"), "{second}");
    let folder = tempfile::tempdir().unwrap();
    let lone = folder.path().join("llama-00001-of-00002.gguf");
    std::fs::copy(fixture("llama-00001-of-00002.gguf"), &lone).unwrap();
    let missing = read(&lone).unwrap_err();
    assert!(missing.contains("llama-00002-of-00002.gguf: the file cannot be read"), "{missing}");
    let twice = folder.path().join("llama-00002-of-00002.gguf");
    std::fs::copy(&lone, &twice).unwrap();
    let wrong = read(&lone).unwrap_err();
    assert!(wrong.contains("it is not part 2 of 2"), "{wrong}");
    let renamed = folder.path().join("llama.gguf");
    std::fs::copy(&lone, &renamed).unwrap();
    let wrong = read(&renamed).unwrap_err();
    assert!(wrong.contains("does not end in `-00001-of-00002.gguf`"), "{wrong}");
}

/// The start of a header: so many tensors and keys.
fn start(tensors: u64, keys: u64) -> Vec<u8> {
    [&b"GGUF"[..], &3u32.to_le_bytes(), &tensors.to_le_bytes(), &keys.to_le_bytes()].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

/// A key with the type of its value and the value's bytes.
fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [text(name.as_bytes()), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
}

fn tensor(name: &str, sides: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let sides_bytes: Vec<u8> = sides.iter().flat_map(|side| side.to_le_bytes()).collect();
    let dimensions = (sides.len() as u32).to_le_bytes();
    [text(name.as_bytes()), dimensions.to_vec(), sides_bytes, kind.to_le_bytes().to_vec()]
        .into_iter()
        .flatten()
        .chain(offset.to_le_bytes())
        .collect()
}

#[test]
fn hostile_headers_are_refused_with_the_byte() {
    let string_array = [&8u32.to_le_bytes()[..], &(1u64 << 60).to_le_bytes(), &text(b"one")].concat();
    let number_array = [&4u32.to_le_bytes()[..], &(1u64 << 60).to_le_bytes()].concat();
    let array_of_arrays = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    let long_key = [start(0, 1), (1u64 << 60).to_le_bytes().to_vec()].concat();
    let long_text = [start(0, 1), key("a", 8, &(1u64 << 60).to_le_bytes())].concat();
    let one = |tensor: Vec<u8>| [start(1, 0), tensor].concat();
    let twice = [start(2, 0), tensor("a", &[4], 0, 0), tensor("a", &[4], 0, 32)].concat();
    let cases: &[(&str, Vec<u8>)] = &[
        ("does not begin with `GGUF`", b"GGML\x03\0\0\0".to_vec()),
        ("ends within its header, in the magic number", b"GG".to_vec()),
        ("version 1 of GGUF", b"GGUF\x01\0\0\0".to_vec()),
        ("big-endian", b"GGUF\0\0\0\x03".to_vec()),
        ("byte 8: 1152921504606846976 tensors, more than", start(1 << 60, 0)),
        ("byte 16: 1152921504606846976 keys, more than", start(0, 1 << 60)),
        ("byte 24: 1152921504606846976 a key, more than 65535", long_key),
        ("the header is longer than", long_text),
        ("ends within its header, in a key", start(0, 7)),
        ("unknown type 77", [start(0, 1), key("a", 77, &[])].concat()),
        ("ends within its header, in a text of an array", [start(0, 1), key("a", 9, &string_array)].concat()),
        ("the header is longer than", [start(0, 1), key("a", 9, &number_array)].concat()),
        ("unknown type 9", [start(0, 1), key("a", 9, &array_of_arrays)].concat()),
        ("`a` is there twice", [start(0, 2), key("a", 0, &[1]), key("a", 0, &[1])].concat()),
        ("a key is not UTF-8", [start(0, 1), text(b"\xff\xfe")].concat()),
        ("`general.alignment` is 0,", [start(0, 1), key("general.alignment", 4, &[0; 4])].concat()),
        ("`general.alignment` is 33,", [start(0, 1), key("general.alignment", 4, &[33, 0, 0, 0])].concat()),
        ("unknown type 4", one(tensor("a", &[32], 4, 0))),
        ("more than 4 dimensions", one(tensor("a", &[1; 5], 0, 0))),
        ("too many elements", one(tensor("a", &[1 << 33, 1 << 33], 0, 0))),
        ("a dimension of zero", one(tensor("a", &[32, 0], 0, 0))),
        ("no whole number of its type's blocks", one(tensor("a", &[100], 12, 0))),
        ("its offset is not aligned", one(tensor("a", &[32], 0, 8))),
        ("its end is beyond any file", one(tensor("a", &[1 << 20], 0, u64::MAX - 31))),
        ("`a` is there twice", twice),
        ("no `general.architecture`", start(0, 0)),
    ];
    for (expected, bytes) in cases {
        let wrong = refusal(bytes);
        assert!(wrong.contains(expected), "{expected}: {wrong}");
    }
}

/// A model of one key too few or one value too many.
fn llama(keys: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let architecture = key("general.architecture", 8, &text(b"llama"));
    let keys = [&[architecture][..], keys].concat();
    let start = start(tensors.len() as u64, keys.len() as u64);
    [vec![start], keys, tensors.to_vec()].concat().concat()
}

#[test]
fn what_is_no_model_here_says_why() {
    let whole = |name: &str, value: u64| key(name, 10, &value.to_le_bytes());
    let layers = |count| whole("llama.block_count", count);
    let embedding = || tensor("token_embd.weight", &[64, 64], 0, 0);
    let heads = || [layers(1), whole("llama.attention.head_count", 4), whole("llama.embedding_length", 64)];
    let experts = |count, used| {
        let counts = [whole("llama.expert_count", count), whole("llama.expert_used_count", used)];
        [&heads()[..], &counts].concat()
    };
    let stack = |count| tensor("blk.0.ffn_up_exps.weight", &[64, 64, count], 0, 0);
    let cases = [
        ("no `llama.block_count`", llama(&[], &[])),
        (
            "`llama.block_count` is 18446744073709551615; it is from 1 to 4096",
            llama(&[layers(u64::MAX)], &[]),
        ),
        ("no tensor `token_embd.weight`", llama(&[layers(1)], &[])),
        ("no `llama.attention.head_count`", llama(&[layers(1)], &[embedding()])),
        ("a layer that the model does not have", llama(&heads(), &[tensor("blk.1.a.weight", &[4], 0, 0)])),
        ("it is of type `adapter`", llama(&[key("general.type", 8, &text(b"adapter"))], &[])),
        ("`llama.ssm.state_size` means a model with recurrent layers", {
            llama(&[whole("llama.ssm.state_size", 16)], &[])
        }),
        ("has 3 experts, the metadata say 4", llama(&experts(4, 2), &[embedding(), stack(3)])),
        ("`llama.expert_used_count` is 5; it is from 1 to 4", llama(&experts(4, 5), &[])),
        (
            "in which no block can be",
            llama(&heads(), &[embedding(), tensor("blk.0.a.weight", &[4, 4], 24, 0)]),
        ),
        ("no tensor `blk.0.ffn_up_exps.weight`", {
            llama(&experts(4, 2), &[embedding(), tensor("blk.0.ffn_up.1.weight", &[4, 4], 0, 0)])
        }),
        ("has 18446744073709551615 experts", {
            let name = format!("blk.0.ffn_up.{}.weight", u64::MAX);
            llama(&experts(4, 2), &[embedding(), tensor(&name, &[4, 4], 0, 0)])
        }),
        ("1073741824 blocks, more than", {
            let large =
                [layers(4096), whole("llama.expert_count", 1 << 18), whole("llama.expert_used_count", 1)];
            llama(&large, &[])
        }),
    ];
    for (expected, bytes) in cases {
        let wrong = refusal(&bytes);
        assert!(wrong.contains(expected), "{expected}: {wrong}");
    }
}

#[test]
fn experts_of_old_files_stand_one_by_one() {
    let whole = |name: &str, value: u64| key(name, 10, &value.to_le_bytes());
    let keys = [
        whole("llama.block_count", 1),
        whole("llama.attention.head_count", 4),
        whole("llama.embedding_length", 64),
        whole("llama.expert_count", 2),
        whole("llama.expert_used_count", 1),
    ];
    let mut tensors = vec![tensor("token_embd.weight", &[64, 64], 0, 0)];
    for expert in 0..2 {
        for part in ["gate", "up", "down"] {
            tensors.push(tensor(&format!("blk.0.ffn_{part}.{expert}.weight"), &[64, 64], 2, 0));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.gguf");
    std::fs::write(&path, llama(&keys, &tensors)).unwrap();
    let (model, facts) = read(&path).unwrap();
    assert_eq!((model.blocks.len(), facts.native, facts.selected), (2, "int4_g32", 1));
    assert_eq!(facts.block_bytes, Bytes(3 * 64 * 64 / 32 * 18));
    // The embedding is the head too.
    assert_eq!((model.head_read, model.resident), (Bytes(64 * 64 * 4), Bytes(64 * 64 * 4)));
}

#[test]
fn a_scenario_takes_a_gguf_file_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("gpt-oss-mxfp4.gguf"), folder.path().join("small.gguf")).unwrap();
    let text = "name: a\nmachine: h100-sxm\nmodel: { gguf: small.gguf }\nmemory: { hbm: 40 slots }\n\
                workload: { routing: { zipf_markov: { skew: 0.8, tokens: 8 } } }\npolicy: lru\n";
    let file = folder.path().join("scenario.yaml");
    let load = |text: &str| scenarios::load_text(&file.display().to_string(), text, &[], &|_| Ok(()));
    let wrong = load(&text.replace("small.gguf", "absent.gguf")).unwrap_err().to_string();
    assert!(wrong.contains("no file at") && wrong.contains("absent.gguf"), "{wrong}");
    let scenario = load(text).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!((scenario.model.name.as_str(), scenario.model.blocks.len()), ("small", 64));
}

#[test]
fn a_header_that_was_cut_anywhere_is_refused() {
    let whole = std::fs::read(fixture("gpt-oss-mxfp4.gguf")).unwrap();
    for end in 0..whole.len() {
        let wrong = refusal(&whole[..end]);
        assert!(wrong.contains("the file ends within its header"), "{end}: {wrong}");
    }
}

proptest! {
    #[test]
    fn no_header_that_was_tampered_with_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let mut bytes = std::fs::read(fixture("qwen3moe-q4_k_m.gguf")).unwrap();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Ok((_, facts)) = read(&path) {
            prop_assert!(facts.layers > 0);
        }
    }
}
