use super::*;
use crate::output::{ktransformers, llama_cpp};
use policy::model::{Block, Layer, Matrix};
use policy::{FormatId, LayerId};
use regex::Regex;

/// Layers of so many blocks: one is a dense layer, more are experts.
fn model(layers: &[u32]) -> Model {
    let mut model = Model { name: "tiny".into(), ..Model::default() };
    for (index, &blocks) in layers.iter().enumerate() {
        let first_block = BlockId(model.blocks.len() as u32);
        model.layers.push(Layer { first_block, blocks, selected: 1, ..Layer::default() });
        let kind = if blocks == 1 { BlockKind::Dense } else { BlockKind::Expert };
        let layer = LayerId(index as u16);
        let native = FormatId::named("bf16").unwrap();
        model.blocks.extend((0..blocks).map(|index| Block {
            kind,
            layer,
            index,
            matrices: [Matrix { rows: 1, columns: 5 }].into(),
            native,
            mixed: None,
            recipe: None,
        }));
    }
    model
}

/// Blocks of ten bytes: (residency, demands).
fn seen(blocks: &[(f64, u64)]) -> Vec<Seen> {
    blocks.iter().map(|&(residency, demands)| Seen { residency, demands, bytes: Bytes(10) }).collect()
}

/// A dense layer always there, one expert layer half kept, one hardly.
fn placement() -> Placement {
    let blocks =
        [(1.0, 40), (0.9, 30), (0.1, 5), (0.8, 20), (0.0, 5), (0.2, 10), (0.7, 30), (0.0, 0), (0.1, 0)];
    Placement::of(&model(&[1, 4, 4]), Bytes(59), &seen(&blocks), 0.75)
}

fn text(
    write: impl Fn(&mut dyn std::io::Write, &Placement) -> std::io::Result<()>,
    of: &Placement,
) -> String {
    let mut out = Vec::new();
    write(&mut out, of).unwrap();
    String::from_utf8(out).unwrap()
}

/// The patterns of `-ot`.
fn patterns(text: &str) -> Vec<Regex> {
    let value = text.lines().find(|line| !line.starts_with('#')).unwrap_or("");
    let each = value.split(',').filter(|pattern| !pattern.is_empty());
    each.map(|pattern| Regex::new(pattern.strip_suffix("=CPU").unwrap()).unwrap()).collect()
}

#[test]
fn blocks_and_layers_are_chosen_by_residency_within_the_capacity() {
    let placement = placement();
    let resident: Vec<_> = placement.layers.iter().map(|layer| layer.resident.clone()).collect();
    assert_eq!(resident, [vec![0], vec![0, 2], vec![0, 1]]);
    // Layers of 10, 40 and 40 bytes in 59: the mean residencies are 1, 0.45 and 0.25.
    let whole: Vec<_> = placement.layers.iter().map(|layer| layer.whole).collect();
    assert_eq!(whole, [true, true, false]);
    let HitRates { run, by_block, by_layer, most_demanded } = placement.hit_rate;
    assert_eq!((run, by_block), (0.75, 130.0 / 140.0));
    assert_eq!((by_layer, most_demanded), (100.0 / 140.0, 130.0 / 140.0));
    assert_eq!(placement.blocks_resident, 5);
}

#[test]
fn llama_cpp_gets_the_layers_that_leave() {
    let expected = r#"# tiny in llama.cpp: 2 of 3 layers' blocks
# stay on the accelerator, the others' are computed where they are, in host memory.
# llama.cpp keeps all experts of a layer in one tensor, so it places layers, not experts.
# Of the run's demands, fast memory served 75.00 % as blocks moved. It would serve 92.86 % with the blocks
# of placement.json kept for good, and 71.43 % with whole layers: rounding changes it by -21.43 points.
# llama-server -m MODEL.gguf -ngl 999 -ot "$(grep -v '^#' llama-cpp.txt)"
^blk\.(2)\.ffn_(gate|up|down|gate_up)_exps\.weight$=CPU
"#;
    assert_eq!(text(|out, of| llama_cpp::write(out, of), &placement()), expected);
}

#[test]
fn ktransformers_gets_rules_for_layers_and_a_table_for_experts() {
    let yaml = text(|out, of| ktransformers::write(out, of), &placement());
    let rules: Vec<&str> = yaml.lines().filter(|line| !line.starts_with('#')).collect();
    let rule = |layer: usize, device: &str, op: &str| {
        format!(
            "- match:
    name: \"^model\\\\.layers\\\\.({layer})\\\\.(mlp|block_sparse_moe)\\\\.experts$\"
  replace:
    class: ktransformers.operators.experts.KTransformersExperts
    kwargs:
      prefill_device: \"cuda:0\"
      prefill_op: \"KExpertsTorch\"
      generate_device: \"{device}\"
      generate_op: \"{op}\"
      out_device: \"cuda:0\"
  recursive: False"
        )
    };
    let expected = [rule(1, "cuda:0", "KExpertsMarlin"), rule(2, "cpu", "KExpertsCPU")];
    assert_eq!(rules.join("\n"), expected.join("\n"));
    let ratio: f64 =
        yaml.split("--kt-gpu-experts-ratio ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    assert_eq!((8.0 * ratio) as usize, 4, "the server keeps int(ratio * experts)");
}

#[test]
fn patterns_match_the_tensors_they_mean_and_no_others() {
    // 24 layers, the first dense; every third expert layer is warm.
    let layers: Vec<u32> = (0..24).map(|layer| if layer == 0 { 1 } else { 4 }).collect();
    let mut blocks = vec![(0.0, 0)];
    blocks.extend((1..24).flat_map(|layer| [(if layer % 3 == 1 { 0.9 } else { 0.1 }, layer); 4]));
    let placement = Placement::of(&model(&layers), Bytes(8 * 40), &seen(&blocks), 0.5);
    let patterns = patterns(&text(|out, of| llama_cpp::write(out, of), &placement));
    let matched = |name: &str| patterns.iter().any(|pattern| pattern.is_match(name));
    for layer in 0..240 {
        let moved = layer < 24 && layer % 3 != 1;
        for tensor in ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ffn_gate_up_exps"] {
            assert_eq!(
                matched(&format!("blk.{layer}.{tensor}.weight")),
                moved && layer > 0,
                "{layer} {tensor}"
            );
            assert!(!matched(&format!("blk.{layer}.{tensor}.bias")));
            assert!(!matched(&format!("mtp.blk.{layer}.{tensor}.weight")));
        }
        for tensor in ["ffn_gate", "ffn_up", "ffn_down"] {
            assert_eq!(matched(&format!("blk.{layer}.{tensor}.weight")), layer == 0, "{layer} {tensor}");
        }
        for tensor in ["ffn_gate_inp", "ffn_up_shexp", "ffn_norm", "attn_q", "ffn_gate_exps_b"] {
            assert!(!matched(&format!("blk.{layer}.{tensor}.weight")), "{layer} {tensor}");
        }
    }
    assert!(!matched("output.weight") && !matched("token_embd.weight"));
}

#[test]
fn a_model_without_layers_or_with_foreign_blocks_gives_no_patterns() {
    let empty = Placement::of(&model(&[]), Bytes(100), &[], 0.0);
    assert_eq!(empty.hit_rate.by_layer, 0.0);
    let mut states = model(&[4, 0, 4]);
    states.blocks.iter_mut().for_each(|block| block.kind = BlockKind::State);
    let states = Placement::of(&states, Bytes::ZERO, &seen(&[(0.5, 1); 8]), 0.5);
    for placement in [empty, states] {
        assert!(patterns(&text(|out, of| llama_cpp::write(out, of), &placement)).is_empty());
        let yaml = text(|out, of| ktransformers::write(out, of), &placement);
        assert_eq!(yaml.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>(), ["[]"]);
    }
}
