//! The shipped models have the published sizes, and every public config imports or says what is missing.

use policy::model::BlockKind;
use policy::state_format::StateFormat;
use policy::{Bytes, Model};
use std::path::PathBuf;

/// A shipped model: layers, blocks of a layer that has most, blocks a token selects, parameters, bytes.
type Published = (&'static str, (u32, u32, u32), u64, u64);

/// Parameters and bytes of the published checkpoints, to the last one: `metadata.total_size` of each repository's
/// `model.safetensors.index.json`, and half of it where all is bf16. OLMoE's is in float32, so half of half.
/// gpt-oss: 116.83 and 20.91 billion, 60.8 and 12.8 GiB in the model card (arXiv 2508.10925, table 1). DeepSeek-V3: 671
/// billion for the main model (arXiv 2412.19437); its repository has the prediction module's in the same sum, so the
/// bytes are counted by hand: 8 bits a weight and 32 for each tile of 128 by 128, but 16 for embedding, head, norms, routers.
const PUBLISHED: &[Published] = &[
    ("deepseek-v2-lite", (27, 64, 6), 15_706_484_224, 31_412_968_448),
    ("deepseek-v3", (61, 256, 8), 671_026_419_200, 673_150_575_280),
    ("gpt-oss-120b", (36, 128, 4), 116_829_156_672, 65_248_815_744),
    ("gpt-oss-20b", (24, 32, 4), 20_914_757_184, 13_761_264_768),
    ("llama-3.1-70b", (80, 13, 13), 70_553_706_496, 141_107_412_992),
    ("llama-3.1-8b", (32, 13, 13), 8_030_261_248, 16_060_522_496),
    ("mixtral-8x22b", (56, 8, 2), 140_630_071_296, 281_260_142_592),
    ("mixtral-8x7b", (32, 8, 2), 46_702_792_704, 93_405_585_408),
    ("olmoe", (16, 64, 8), 6_919_161_856, 13_838_323_712),
    ("phi-3.5-moe", (32, 16, 2), 41_873_153_344, 83_746_306_688),
    ("qwen3-235b-a22b", (94, 128, 8), 235_093_634_560, 470_187_269_120),
    ("qwen3-30b-a3b", (48, 128, 8), 30_532_122_624, 61_064_245_248),
];

/// The shipped models with recurrent layers: how many of their layers are, and billions of parameters, all and active ones,
/// from their cards and papers.
const RECURRENT: &[(&str, usize, f64, f64)] = &[
    ("granite-4.0-h-small", 36, 32.2, 9.0),
    ("jamba-mini-1.6", 28, 51.6, 12.1),
    ("kimi-linear-48b-a3b", 20, 49.1, 3.4),
    ("mamba-2.8b", 64, 2.768, 2.768),
    ("mamba2-2.7b", 64, 2.703, 2.703),
    ("nemotron-h-8b", 24, 8.1, 8.1),
    ("qwen3-next-80b-a3b", 36, 79.7, 3.9),
];

/// The phases of the shipped pipelines, in order: parameters, as their checkpoints have them, or the shapes of their configs.
/// The transformer of DiT-XL/2 counts the positions, as its checkpoint does; 23 of 24 layers of LLaVA's encoder run.
type Phases = (&'static str, &'static [(&'static str, u64)]);

const PIPELINES: &[Phases] = &[
    ("dit-xl-2", &[("transformer", 675_129_632), ("vae", 49_490_199)]),
    (
        "flux.1-dev",
        &[("clip", 123_060_480), ("t5", 4_762_310_656), ("transformer", 11_901_408_320), ("vae", 49_545_475)],
    ),
    ("llava-1.5-7b", &[("vision", 311_888_896), ("decoder", 6_738_939_904)]),
    (
        "sd3-medium",
        &[
            ("clip", 123_060_480),
            ("clip_g", 694_659_840),
            ("t5", 4_762_310_656),
            ("transformer", 2_028_328_000),
            ("vae", 49_545_475),
        ],
    ),
];

fn shipped(name: &str) -> (Model, scenarios::ModelFacts) {
    scenarios::model(name).unwrap_or_else(|wrong| panic!("{wrong}"))
}

#[test]
fn shipped_models_have_the_published_sizes() {
    let all = scenarios::models().unwrap();
    let names: Vec<_> = all.iter().map(|facts| facts.name.as_str()).collect();
    let mut expected: Vec<_> = PUBLISHED.iter().map(|row| row.0).collect();
    expected.extend(RECURRENT.iter().map(|row| row.0));
    expected.extend(PIPELINES.iter().map(|row| row.0));
    expected.sort_unstable();
    assert_eq!(names, expected);
    for (name, counts, parameters, bytes) in PUBLISHED {
        let facts = all.iter().find(|facts| facts.name == *name).unwrap();
        assert_eq!((facts.layers, facts.blocks_per_layer, facts.selected), *counts, "{name}");
        assert_eq!(facts.parameters, *parameters, "{name}");
        assert_eq!(facts.managed_bytes + facts.resident_bytes, Bytes(*bytes), "{name}");
    }
}

/// A model's layers of a phase: parameters, and operations of their blocks in a step.
fn phase(model: &Model, name: &str) -> (u64, u64) {
    let phase = model.phases.iter().find(|phase| phase.name == name).unwrap();
    let native = model.blocks[0].native;
    let (mut parameters, mut operations) = (0, 0);
    for layer in &model.layers[usize::from(phase.layers.start)..usize::from(phase.layers.end)] {
        parameters += layer.resident.0 / native.bytes(1, 0).0;
        let blocks = &model.blocks[layer.first_block.index()..][..layer.blocks as usize];
        parameters += blocks.iter().map(|block| block.elements()).sum::<u64>();
        operations += blocks
            .iter()
            .zip(&layer.rows[..])
            .map(|(block, &rows)| 2 * block.elements() * u64::from(rows))
            .sum::<u64>();
    }
    (parameters, operations)
}

#[test]
fn phases_have_the_published_sizes() {
    for (name, phases) in PIPELINES {
        let (model, facts) = shipped(name);
        let names: Vec<_> = model.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(names, phases.iter().map(|row| row.0).collect::<Vec<_>>());
        for (part, parameters) in phases.iter().filter(|(part, _)| *part != "decoder") {
            assert_eq!(phase(&model, part).0, *parameters, "{name} {part}");
        }
        assert_eq!(facts.parameters, phases.iter().map(|row| row.1).sum::<u64>(), "{name}");
        let all = model.phases.iter().flat_map(|phase| phase.layers.clone());
        assert!(all.eq(0..model.layers.len() as u16), "{name}");
    }
}

#[test]
fn a_step_takes_the_published_operations() {
    // What diffusers counts of a forward pass of FLUX.1-dev at 1024 x 1024, attention apart: 59,523.04 GFLOP
    // (huggingface.co/datasets/diffusers/benchmarks).
    let flux = phase(&shipped("flux.1-dev").0, "transformer").1 as f64 / 59_523.04e9;
    assert!((flux - 1.0).abs() < 0.001, "{flux}");
    // 118.64 G multiplications and additions, with attention: DiT, arXiv 2212.09748, appendix.
    let (model, _) = shipped("dit-xl-2");
    let pairs = 256 * 256;
    let attention: u64 = model.layers[..30].iter().map(|layer| layer.flops_per_pair * pairs).sum();
    let dit = (phase(&model, "transformer").1 + attention) as f64 / 2.0 / 118.64e9;
    assert!((dit - 1.0).abs() < 0.001, "{dit}");
}

#[test]
fn active_parameters_are_the_published_ones() {
    // In billions, each from its model card or paper. gpt-oss's own 3.61 and 5.13 leave the embedding out.
    let embedding = 201_088.0 * 2880.0 / 1e9;
    let published = [
        ("mixtral-8x7b", 12.9),
        ("mixtral-8x22b", 39.1),
        ("qwen3-30b-a3b", 3.3),
        ("qwen3-235b-a22b", 22.0),
        ("phi-3.5-moe", 6.6),
        ("olmoe", 1.3),
        ("deepseek-v3", 37.0),
        ("gpt-oss-20b", 3.61 + embedding),
        ("gpt-oss-120b", 5.13 + embedding),
    ];
    for (name, billions) in published {
        let counted = shipped(name).1.active_parameters as f64 / 1e9;
        assert!((counted / billions - 1.0).abs() < 0.02, "{name}: {counted} for {billions}");
    }
}

#[test]
fn what_stays_resident_is_counted_by_hand() {
    let (gpt_oss, facts) = shipped("gpt-oss-20b");
    assert_eq!((facts.native, facts.block_bytes), ("mxfp4", Bytes(13_219_200)));
    let windows: Vec<_> = gpt_oss.layers.iter().map(|layer| layer.window).collect();
    assert_eq!(windows[..4], [Some(128), None, Some(128), None]);
    assert_eq!(gpt_oss.layers[0].kv_per_token, Bytes(2 * 8 * 64 * 2));
    assert_eq!(gpt_oss.head_read, Bytes(201_088 * 2880 * 2));
    // Projections with biases, sinks, norms, router, expert biases.
    let attention = 2 * 2880 * (4096 + 512) + (4096 + 2 * 512 + 2880) + 64;
    let layer = attention + 2 * 2880 + 32 * (2880 + 1) + 32 * 3 * 2880;
    assert_eq!(gpt_oss.layers[0].resident, Bytes(2 * layer));
    assert_eq!(gpt_oss.uniform_blocks(), Some(32));

    let (mixtral, facts) = shipped("mixtral-8x7b");
    assert_eq!((facts.native, facts.block_bytes), ("bf16", Bytes(352_321_536)));
    assert!(mixtral.layers.iter().all(|layer| layer.window.is_none()));
    let layer = 2 * 4096 * (4096 + 1024) + 2 * 4096 + 4096 * 8;
    assert_eq!(mixtral.layers[0].resident, Bytes(2 * layer));
}

#[test]
fn deepseek_v3_begins_with_dense_layers_and_caches_one_latent_vector() {
    let (model, facts) = shipped("deepseek-v3");
    let blocks: Vec<_> = model.layers.iter().map(|layer| layer.blocks).collect();
    assert_eq!(blocks[..4], [0, 0, 0, 256]);
    assert_eq!(model.uniform_blocks(), Some(256));
    assert!(model.layers.iter().all(|layer| layer.kv_per_token == Bytes((512 + 64) * 2)));
    // Three matrices of 2048 by 7168: a byte a weight, and 4 bytes for each of their tiles.
    // Per head, keys of 128 + 64 and values of 128; or twice the latent vector of 512, and the 64 that all heads share.
    let latent = model.layers[0].latent.unwrap();
    assert_eq!(model.layers[0].flops_per_pair, 2 * 128 * (128 + 64 + 128));
    assert_eq!(latent.flops_per_pair, 2 * 128 * (512 + 64 + 512));
    assert_eq!(latent.flops_per_cached, 2 * 128 * 512 * (128 + 128));
    // One token that looks far back leaves the vectors as they are; a long prompt makes keys and values of them.
    assert_eq!(model.layers[0].attention_flops(1000, 999), 1000 * latent.flops_per_pair);
    let prompt = 4096 * 4097 / 2;
    assert_eq!(model.layers[0].attention_flops(prompt, 0), prompt * model.layers[0].flops_per_pair);
    assert_eq!(facts.native, "fp8_e4m3_b128");
    assert_eq!(facts.block_bytes, Bytes(3 * (2048 * 7168 + 16 * 56 * 4)));
    // A dense layer: attention and a feed-forward of 18,432, all of it read for every token.
    let attention = 1536 * 7168 + 24_576 * 1536 + 576 * 7168 + 32_768 * 512 + 7168 * 16_384;
    assert_eq!(model.layers[0].flops_per_token, 2 * (attention + 3 * 7168 * 18_432));
}

#[test]
fn a_dense_model_is_all_blocks_but_for_its_norms() {
    for (name, hidden) in [("llama-3.1-8b", 4096), ("llama-3.1-70b", 8192)] {
        let (model, facts) = shipped(name);
        assert_eq!(facts.native, "bf16");
        for layer in &model.layers {
            assert_eq!((layer.resident, layer.flops_per_token), (Bytes(2 * hidden * 2), 0));
            assert_eq!(layer.selected, layer.blocks);
            let first = layer.first_block.index();
            let blocks = &model.blocks[first..first + layer.blocks as usize];
            let bytes: Bytes = blocks.iter().map(|block| block.bytes(block.native)).sum();
            assert!(blocks.iter().all(|block| block.bytes(block.native).0 * 8 <= bytes.0), "{name}");
            // q, k, v and o, then gate, up and down in three shards each.
            let kinds: Vec<_> = blocks.iter().map(|block| block.kind).collect();
            assert_eq!(kinds, [vec![BlockKind::Attention; 4], vec![BlockKind::Dense; 9]].concat());
        }
    }
}

/// What a public config imports to: layers, blocks, billions of parameters as published, and bytes; or what its
/// refusal names.
type Outcome = Result<(u32, usize, f64, u64), &'static str>;

const CONFIGS: &[(&str, Outcome)] = &[
    ("DeepSeek-V2-Lite.config.json", Ok((27, 1664, 15.7, 31_412_968_448))),
    ("DeepSeek-V3.facts.json", Ok((61, 14_848, 671.0, 673_150_575_280))),
    ("DeepSeekMoE-16B.config.json", Ok((28, 1728, 16.4, 32_751_456_256))),
    ("DiT-XL-2.facts.json", Err("a diffusion model (`patch_size`)")),
    ("FLUX.1-dev.facts.json", Err("a diffusion model (`in_channels`)")),
    ("GRIN-MoE.config.json", Ok((32, 512, 41.9, 83_746_306_688))),
    ("Granite-4.0-H-Small.facts.json", Err("a model with recurrent layers (`ssm_state`)")),
    ("Granite-4.0-H-dense-2048.facts.json", Err("a model with recurrent layers (`mamba_heads`)")),
    ("Jamba-Mini-1.6.config.json", Ok((32, 256, 51.6, 103_140_646_656))),
    ("JetMoE-8B.config.json", Err("a model whose attention heads are experts too (`jetmoe`)")),
    ("Llama-3.1-70B.config.json", Ok((80, 1040, 70.6, 141_107_412_992))),
    ("Llama-3.1-8B.config.json", Ok((32, 416, 8.03, 16_060_522_496))),
    // 13.6 without the embedding, as MiniCPM counts.
    ("MiniCPM-MoE-8x2B.config.json", Ok((40, 320, 13.6 + 0.28, 27_746_583_552))),
    ("Mixtral-8x22B.facts.json", Ok((56, 448, 140.6, 281_260_142_592))),
    ("Mixtral-8x7B-v0.1.config.json", Ok((32, 256, 46.7, 93_405_585_408))),
    ("NLLB-MoE-54B.config.json", Err("an encoder-decoder model (`nllb-moe`)")),
    ("Nemotron-H-8B.facts.json", Err("a model with recurrent layers (`hybrid_override_pattern`)")),
    ("OLMoE-1B-7B-0125.config.json", Ok((16, 1024, 6.92, 27_676_647_424))),
    ("Phi-3.5-MoE-instruct.config.json", Ok((32, 512, 41.9, 83_746_306_688))),
    ("Phi-mini-MoE-instruct.config.json", Ok((32, 512, 7.6, 15_295_265_408))),
    // 3.37 as stored, with the tied embedding twice.
    ("PowerMoE-3B.config.json", Ok((32, 1280, 3.37 - 0.0755, 13_195_155_456))),
    ("Qwen1.5-MoE-A2.7B.config.json", Ok((24, 1440, 14.3, 28_631_568_384))),
    ("Qwen2-57B-A14B.config.json", Ok((28, 1792, 57.4, 114_817_317_888))),
    ("Qwen3-235B-A22B.facts.json", Ok((94, 12_032, 235.0, 470_187_269_120))),
    ("Qwen3-30B-A3B-Instruct-2507.config.json", Ok((48, 6144, 30.5, 61_064_245_248))),
    ("Qwen3-30B-A3B.config.json", Ok((48, 6144, 30.5, 61_064_245_248))),
    ("Qwen3-32B.config.json", Ok((64, 832, 32.8, 65_524_246_528))),
    ("SD3-medium.facts.json", Err("a diffusion model (`patch_size`)")),
    ("Switch-Base-128.config.json", Err("an encoder-decoder model (`switch_transformers`)")),
    ("XVERSE-MoE-A4.2B.config.json", Ok((28, 1792, 25.8, 51_556_705_280))),
    ("Zamba2-2.7B.facts.json", Err("a model with recurrent layers (`mamba_d_state`)")),
    ("gpt-oss-120b.facts.json", Ok((36, 4608, 116.83, 65_248_815_744))),
    ("gpt-oss-20b.facts.json", Ok((24, 768, 20.91, 13_761_264_768))),
    ("mamba-2.8b-hf.facts.json", Err("`vocab_size` is missing")),
    ("mamba2-2.7b.facts.json", Err("`hidden_size` is missing")),
];

#[test]
fn every_public_config_imports_or_says_what_is_missing() {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("HOTSET_DATA").map_or_else(default, PathBuf::from).join("model_configs");
    if !folder.is_dir() {
        println!("skipped: no data at {}", folder.display());
        return;
    }
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, CONFIGS.iter().map(|(file, _)| *file).collect::<Vec<_>>());
    for (file, expected) in CONFIGS {
        let imported = scenarios::model(&folder.join(file).display().to_string());
        match (expected, imported) {
            (Ok((layers, blocks, billions, bytes)), Ok((model, facts))) => {
                let counted = facts.parameters as f64 / 1e9;
                assert!((counted / billions - 1.0).abs() < 0.01, "{file}: {counted} for {billions}");
                assert_eq!((facts.layers, model.blocks.len()), (*layers, *blocks), "{file}");
                assert_eq!(facts.managed_bytes + facts.resident_bytes, Bytes(*bytes), "{file}");
            }
            (Err(message), Err(wrong)) => {
                let says = |text: &str| text.starts_with(message);
                assert!(wrong.all().iter().any(|one| says(&one.message)), "{file}: {wrong}");
            }
            (_, Ok((_, facts))) => panic!("{file} imports: {facts:?}"),
            (_, Err(wrong)) => panic!("{file}: {wrong}"),
        }
    }
}

#[test]
fn models_with_recurrent_layers_have_the_published_sizes() {
    for (name, recurrent, billions, active) in RECURRENT {
        let (model, facts) = shipped(name);
        let counted = facts.parameters as f64 / 1e9;
        assert!((counted / billions - 1.0).abs() < 0.01, "{name}: {counted} for {billions}");
        let counted = facts.active_parameters as f64 / 1e9;
        assert!((counted / active - 1.0).abs() < 0.03, "{name}: {counted} active for {active}");
        assert_eq!(
            model.layers.iter().filter(|layer| layer.recurrent.is_some()).count(),
            *recurrent,
            "{name}"
        );
        // A layer has a cache or a state, or is a feed-forward.
        assert!(model.layers.iter().all(|layer| layer.recurrent.is_none() || layer.kv_per_token == Bytes(0)));
    }
}

/// Recurrent states: layers, megabytes a layer in 32 and 16 bits, kilobytes of the convolution's inputs, and megabytes of a
/// sequence in 32, 16, 8 and 4 bits, as they are written: to so many places. The two last rows are the recurrent layers
/// alone of models that do not import.
type StateRow = (&'static str, usize, [f64; 2], f64, [&'static str; 4]);

const STATES: &[StateRow] = &[
    ("mamba-2.8b", 64, [0.33, 0.16], 31.0, ["22.9", "12.5", "7.4", "4.9"]),
    ("mamba2-2.7b", 64, [2.62, 1.31], 32.0, ["170", "86", "45", "25.7"]),
    ("jamba-mini-1.6", 28, [0.52, 0.26], 49.0, ["16.1", "8.7", "5.2", "3.4"]),
    ("nemotron-h-8b", 24, [4.19, 2.10], 61.0, ["102", "52", "27", "15.6"]),
    ("granite-4.0-h-small", 36, [4.19, 2.10], 51.0, ["153", "77", "41", "23"]),
    ("qwen3-next-80b-a3b", 36, [2.10, 1.05], 49.0, ["77", "39.5", "21", "12.4"]),
    ("kimi-linear-48b-a3b", 20, [2.10, 1.05], 74.0, ["43", "22", "12", "7.4"]),
    ("Nemotron-3-Super", 40, [4.19, 2.10], 61.0, ["170", "86", "46", "26"]),
    ("Zamba2-2.7B", 54, [1.31, 0.66], 31.0, ["72", "37", "20", "11.7"]),
];

/// The recurrent layers of a model whose other layers are not known here, as a Mamba-2.
fn recurrent_alone(name: &str) -> Model {
    let (layers, hidden, heads, state, groups) = match name {
        "Zamba2-2.7B" => (54, 2560, 80, 64, 1),
        _ => (40, 4096, 128, 128, 8),
    };
    let config = format!(
        r#"{{"model_type": "mamba2", "hidden_size": {hidden}, "num_hidden_layers": {layers}, "num_heads": {heads},
        "head_dim": 64, "state_size": {state}, "n_groups": {groups}, "conv_kernel": 4, "vocab_size": 8, "torch_dtype": "bfloat16"}}"#
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, config).unwrap();
    shipped(&path.display().to_string()).0
}

#[test]
fn states_take_what_the_table_says() {
    let format = |name| StateFormat::named(name).unwrap();
    for (name, count, [fp32, fp16], convolution, sequence) in STATES {
        let model = match name.starts_with(char::is_uppercase) {
            true => recurrent_alone(name),
            false => shipped(name).0,
        };
        let states: Vec<_> = model.layers.iter().filter_map(|layer| layer.recurrent).collect();
        assert_eq!(states.len(), *count, "{name}");
        for state in states {
            let megabytes = |bits: u64| (state.numbers * bits / 8) as f64 / 1e6;
            assert!((megabytes(32) - fp32).abs() < 0.0051, "{name}: {}", megabytes(32));
            assert!((megabytes(16) - fp16).abs() < 0.0051, "{name}: {}", megabytes(16));
            let kilobytes = (state.convolution * 2) as f64 / 1e3;
            assert!((kilobytes - convolution).abs() < 0.6, "{name}: {kilobytes}");
        }
        for (bits, written) in ["fp32", "fp16", "int8", "int4_g32"].into_iter().zip(sequence) {
            let megabytes = model.state_bytes(format(bits)).0 as f64 / 1e6;
            let places = written.split_once('.').map_or(0, |(_, places)| places.len() as i32);
            let half = 0.51 * 10_f64.powi(-places);
            assert!((megabytes - written.parse::<f64>().unwrap()).abs() < half, "{name} {bits}: {megabytes}");
        }
        // Scales of columns as well: 5 % more than groups alone.
        let share =
            |bits| model.state_bytes(format(bits)).0 as f64 / model.state_bytes(format("int4_g32")).0 as f64;
        assert!((1.01..1.06).contains(&share("int4")), "{name}: {}", share("int4"));
    }
}
