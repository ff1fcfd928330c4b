//! `llama-cpp.txt`: the placement as patterns for llama.cpp's `--override-tensor`.
//!
//! The option takes `regex=buffer type`, several with commas between them; the first pattern found in a tensor's name
//! decides (`common/arg.cpp`, `src/llama-model-loader.cpp`). A layer's experts are one tensor a matrix,
//! `blk.N.ffn_{gate,up,down}_exps.weight` or, fused, `ffn_gate_up_exps` (`LLM_FFN_EXPS_REGEX` in `common/common.h`). Their
//! biases stay on the accelerator, as here: moving them slows prefill (ik_llama.cpp pull request 841).

use super::placement::{Placement, alternatives};
use policy::model::BlockKind;
use std::io::{self, Write};

const TENSORS: [(BlockKind, &str); 3] = [
    (BlockKind::Expert, r"ffn_(gate|up|down|gate_up)_exps\.weight"),
    (BlockKind::Dense, r"ffn_(gate|up|down)\.weight"),
    // A layer that begins with attention's matrices is dense, and all of it is blocks.
    (BlockKind::Attention, r"(attn_(q|k|v|qkv|output)|ffn_(gate|up|down))\.weight"),
];

/// Comments, then the value of `-ot` on a line of its own; no such line where all layers fit.
pub(super) fn write(out: &mut dyn Write, placement: &Placement) -> io::Result<()> {
    let kept = placement.layers.iter().filter(|layer| layer.whole).count();
    writeln!(out, "# {} in llama.cpp: {kept} of {} layers' blocks", placement.model, placement.layers.len())?;
    writeln!(out, "# stay on the accelerator, the others' are computed where they are, in host memory.")?;
    writeln!(
        out,
        "# llama.cpp keeps all experts of a layer in one tensor, so it places layers, not experts."
    )?;
    placement.rounding().iter().try_for_each(|line| writeln!(out, "# {line}"))?;
    let foreign = |kind: BlockKind| TENSORS.iter().all(|(known, _)| *known != kind);
    for layer in placement.layers.iter().filter(|layer| foreign(layer.kind)) {
        writeln!(
            out,
            "# Layer {}: its blocks have no tensor pattern here; it is left as it is.",
            layer.layer
        )?;
    }
    let patterns: Vec<String> = TENSORS
        .iter()
        .map(|(kind, tensors)| (placement.layers_of(*kind, false), tensors))
        .filter(|(layers, _)| !layers.is_empty())
        .map(|(layers, tensors)| format!(r"^blk\.({})\.{tensors}$=CPU", alternatives(&layers)))
        .collect();
    if patterns.is_empty() && kept < placement.layers.len() {
        return writeln!(out, "# Nothing here has a pattern: place whole layers with -ngl {kept}.");
    }
    if patterns.is_empty() {
        return writeln!(out, "# Nothing is to be overridden: -ngl 999 is enough.");
    }
    writeln!(out, "# llama-server -m MODEL.gguf -ngl 999 -ot \"$(grep -v '^#' llama-cpp.txt)\"")?;
    writeln!(out, "{}", patterns.join(","))
}
