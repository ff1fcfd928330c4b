//! `ktransformers.yaml`: the placement as injection rules for KTransformers, and how to hand it to its successor.
//!
//! Rules are `match` a module's name with a regular expression, then `replace`; the first that matches decides
//! (`ktransformers/optimize/optimize.py` at 1a4cd7d, `doc/en/FAQ.md` at 4e1359d for experts on the accelerator). They
//! place a layer's experts as one. kt-kernel (0.5.1, under SGLang) places single experts, by a table of counts:
//! `--kt-expert-placement-strategy frequency` with `--init-expert-location` (`doc/en/kt-kernel/experts-sched-Tutorial.md`
//! at 15c624d); the table is a PyTorch file with the key `logical_count`, a row a layer.

use super::placement::{Placement, alternatives};
use policy::model::BlockKind;
use std::io::{self, Write};

/// Where a layer's experts run.
struct Site {
    whole: bool,
    device: &'static str,
    op: &'static str,
}

const SITES: [Site; 2] = [
    Site { whole: true, device: "cuda:0", op: "KExpertsMarlin" },
    Site { whole: false, device: "cpu", op: "KExpertsCPU" },
];

/// The rules, with what to do with them in comments.
pub(super) fn write(out: &mut dyn Write, placement: &Placement) -> io::Result<()> {
    let (kept, all) = placement.experts();
    writeln!(out, "# {} in KTransformers", placement.model)?;
    if all == 0 {
        writeln!(out, "# No routed experts: its rules place nothing else.")?;
        return writeln!(out, "[]");
    }
    per_expert(out, kept, all)?;
    writeln!(out, "#")?;
    writeln!(
        out,
        "# Injection rules place a layer's experts together. Put these before the rule for experts in the"
    )?;
    writeln!(
        out,
        "# model's own rule file (optimize_rules; a model without one cannot use them). Experts on the"
    )?;
    writeln!(out, "# accelerator need CUDA graphs off.")?;
    placement.rounding().iter().try_for_each(|line| writeln!(out, "# {line}"))?;
    for Site { whole, device, op } in SITES {
        let layers = placement.layers_of(BlockKind::Expert, whole);
        if layers.is_empty() {
            continue;
        }
        let name =
            format!(r"^model\\.layers\\.({})\\.(mlp|block_sparse_moe)\\.experts$", alternatives(&layers));
        write!(
            out,
            "- match:
    name: \"{name}\"
  replace:
    class: ktransformers.operators.experts.KTransformersExperts
    kwargs:
      prefill_device: \"cuda:0\"
      prefill_op: \"KExpertsTorch\"
      generate_device: \"{device}\"
      generate_op: \"{op}\"
      out_device: \"cuda:0\"
  recursive: False
"
        )?;
    }
    Ok(())
}

/// How to place every single expert. The server keeps `int(ratio * experts)` of them: the half keeps rounding away.
fn per_expert(out: &mut dyn Write, kept: usize, all: usize) -> io::Result<()> {
    let ratio = ((kept as f64 + 0.5) / all as f64).min(1.0);
    write!(
        out,
        "# With kt-kernel under SGLang, every expert as placement.json has it, {kept} of {all}: write the table with
#   python3 - <<END
#   import json, torch
#   placement = json.load(open('placement.json'))
#   count = torch.zeros(placement['layers_total'], placement['blocks_per_layer'])
#   for row in placement['layers']:
#       if row['kind'] == 'expert': count[row['layer'], row['resident']] = 1
#   torch.save({{'logical_count': count}}, 'placement.pt')
#   END
# and start the server with
#   --kt-expert-placement-strategy frequency --init-expert-location placement.pt --kt-gpu-experts-ratio {ratio:.6}
"
    )
}
