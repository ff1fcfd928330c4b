//! Which tensors a block is made of, by the names under which Hugging Face publishes models, and how its bytes are put
//! together from theirs.

use super::files::{Files, Slab};
use super::{WeightsError, WrongTensor};
use crate::codec;
use policy::model::{Block, BlockKind, Layer, Matrix};
use policy::{BlockId, FormatId, Model};

/// The tensors of an expert, gate, up, down, where each matrix has its own: Mixtral, Phi-3.5-MoE; then Qwen3-MoE,
/// Qwen2-MoE, OLMoE, DeepSeek.
const EXPERTS: [[&str; 3]; 2] = [
    [
        "block_sparse_moe.experts.{}.w1.weight",
        "block_sparse_moe.experts.{}.w3.weight",
        "block_sparse_moe.experts.{}.w2.weight",
    ],
    ["mlp.experts.{}.gate_proj.weight", "mlp.experts.{}.up_proj.weight", "mlp.experts.{}.down_proj.weight"],
];

/// gpt-oss: all experts of a layer in one tensor, elements apart from scales; in the first two the rows of gate and up
/// alternate, gate first (`GptOssExperts` of the transformers library).
const GPT_OSS: [&str; 4] = [
    "mlp.experts.gate_up_proj_blocks",
    "mlp.experts.gate_up_proj_scales",
    "mlp.experts.down_proj_blocks",
    "mlp.experts.down_proj_scales",
];

/// The matrices of a dense layer, in the order of its blocks: Llama, Mistral, Qwen3.
const DENSE: [(BlockKind, &str); 7] = [
    (BlockKind::Attention, "self_attn.q_proj.weight"),
    (BlockKind::Attention, "self_attn.k_proj.weight"),
    (BlockKind::Attention, "self_attn.v_proj.weight"),
    (BlockKind::Attention, "self_attn.o_proj.weight"),
    (BlockKind::Dense, "mlp.gate_proj.weight"),
    (BlockKind::Dense, "mlp.up_proj.weight"),
    (BlockKind::Dense, "mlp.down_proj.weight"),
];

/// Types that are formats as they are.
const PLAIN: [(&str, &str); 3] = [("F32", "fp32"), ("BF16", "bf16"), ("F16", "fp16")];

/// Elements of mxfp4 that share a scale, and the bytes they take.
const GROUP: u64 = 32;
const GROUP_BYTES: u64 = 16;

/// What a block is read from.
#[derive(Debug)]
pub(super) enum Source {
    /// Numbers without scales, one stretch after another, each stored in a format of its own and read in the block's.
    Plain { native: FormatId, stretches: Vec<(Slab, FormatId)> },
    /// Elements and scales of gpt-oss, as in [`GPT_OSS`]. The first two have `rows` rows.
    Alternating { slabs: [Slab; 4], rows: u64 },
}

impl Source {
    /// The block's bytes.
    pub(super) fn read(&self, files: &Files) -> Result<Vec<u8>, WeightsError> {
        let mut out = Vec::new();
        match self {
            Source::Plain { native, stretches } => {
                for (slab, format) in stretches {
                    let begin = out.len();
                    files.read(*slab, &mut out)?;
                    if format != native {
                        let stored = out.split_off(begin);
                        out.extend(rounded(&stored, *format, *native));
                    }
                }
            }
            Source::Alternating { slabs: [elements, scales, down, down_scales], rows } => {
                for (both, down) in [(elements, down), (scales, down_scales)] {
                    let mut alternating = Vec::new();
                    files.read(*both, &mut alternating)?;
                    let row = (both.bytes / (*rows).max(1)).max(1) as usize;
                    for first in 0..2 {
                        let half = alternating.chunks_exact(row).skip(first).step_by(2);
                        half.for_each(|row| out.extend_from_slice(row));
                    }
                    files.read(*down, &mut out)?;
                }
            }
        }
        Ok(out)
    }
}

/// fp32 numbers in a format of 16 bits.
fn rounded(stored: &[u8], format: FormatId, native: FormatId) -> Vec<u8> {
    let row = Matrix { rows: 1, columns: stored.len() as u64 / 4 };
    let mut out = vec![0; native.bytes(row.columns, row.rows).0 as usize];
    // Sizes are right, and plain formats take any number.
    let coded = codec::transcode(format, stored, native, &[row], &mut out);
    debug_assert!(coded.is_ok(), "{coded:?}");
    out
}

/// Finds and checks the tensors of every block of `model`, in order.
pub(super) fn find(files: &Files, model: &Model) -> Result<Vec<Source>, WeightsError> {
    let mut sources = Vec::with_capacity(model.blocks.len());
    for (number, layer) in model.layers.iter().enumerate() {
        let finder = Finder { files, model, prefix: format!("model.layers.{number}.") };
        let ids = layer.first_block.0..layer.first_block.0 + layer.blocks;
        let blocks: Vec<&Block> = ids.map(|id| model.block(BlockId(id))).collect();
        let Some(first) = blocks.first() else { continue };
        match first.kind {
            BlockKind::Expert if first.native.name() == "mxfp4" => {
                sources.extend(finder.alternating(&blocks, layer)?);
            }
            BlockKind::Expert => sources.extend(finder.experts(&blocks)?),
            BlockKind::Attention | BlockKind::Dense => sources.extend(finder.shards(&blocks)?),
            other => return Err(finder.no_reader(format!("blocks of kind {other:?}"))),
        }
    }
    Ok(sources)
}

/// Looks for the tensors of a layer.
struct Finder<'a> {
    files: &'a Files,
    model: &'a Model,
    prefix: String,
}

impl Finder<'_> {
    /// Experts whose matrices are tensors.
    fn experts(&self, blocks: &[&Block]) -> Result<Vec<Source>, WeightsError> {
        let named = |template: &str, expert: usize| {
            format!("{}{}", self.prefix, template.replace("{}", &expert.to_string()))
        };
        let names = EXPERTS.iter().find(|names| self.files.find(&named(names[0], 0)).is_some());
        let names = names.ok_or_else(|| {
            let alternatives: Vec<String> = EXPERTS.iter().map(|names| named(names[0], 0)).collect();
            self.missing(alternatives.join("` or `"))
        })?;
        let expert = |(number, block): (usize, &&Block)| {
            let [gate, up, down] = self.three(block)?;
            let native = self.plain(block)?;
            let mut stretches = Vec::with_capacity(3);
            for (template, matrix) in names.iter().zip([gate, up, down]) {
                let tensor = self.tensor(&named(template, number))?;
                self.shape(tensor, &[matrix.rows, matrix.columns])?;
                stretches.push((self.whole(tensor), self.stored(tensor, native)?));
            }
            Ok(Source::Plain { native, stretches })
        };
        blocks.iter().enumerate().map(expert).collect()
    }

    /// Experts of gpt-oss.
    fn alternating(&self, blocks: &[&Block], layer: &Layer) -> Result<Vec<Source>, WeightsError> {
        let experts = u64::from(layer.blocks);
        let mut tensors = [0; 4];
        for (tensor, name) in tensors.iter_mut().zip(GPT_OSS) {
            *tensor = self.tensor(&format!("{}{name}", self.prefix))?;
            self.dtype(*tensor, "U8")?;
        }
        let mut sources = Vec::with_capacity(blocks.len());
        for (number, block) in blocks.iter().enumerate() {
            let [gate, up, down] = self.three(block)?;
            let groups = |matrix: Matrix| matrix.columns / GROUP;
            let whole = [gate, down].iter().all(|matrix| matrix.columns.is_multiple_of(GROUP));
            if gate != up || !whole {
                return Err(self.no_reader(format!("experts of {gate:?}, {up:?}, {down:?} in mxfp4")));
            }
            let rows = gate.rows * 2;
            self.shape(tensors[0], &[experts, rows, groups(gate), GROUP_BYTES])?;
            self.shape(tensors[1], &[experts, rows, groups(gate)])?;
            self.shape(tensors[2], &[experts, down.rows, groups(down), GROUP_BYTES])?;
            self.shape(tensors[3], &[experts, down.rows, groups(down)])?;
            let slabs = tensors.map(|tensor| {
                let bytes = self.files.tensor(tensor).tensor.bytes / experts.max(1);
                Slab { tensor, offset: bytes * number as u64, bytes }
            });
            sources.push(Source::Alternating { slabs, rows });
        }
        Ok(sources)
    }

    /// Blocks that are rows of the matrices of a dense layer.
    fn shards(&self, blocks: &[&Block]) -> Result<Vec<Source>, WeightsError> {
        let mut sources = Vec::with_capacity(blocks.len());
        let mut rest = blocks.iter().peekable();
        for (kind, name) in DENSE {
            let tensor = self.tensor(&format!("{}{name}", self.prefix))?;
            let rows = self.files.tensor(tensor).tensor.shape.first().copied();
            let mut row = 0;
            while rows.is_some_and(|rows| row < rows)
                && let Some(block) = rest.next_if(|block| block.kind == kind)
            {
                sources.push(self.shard(block, tensor, row)?);
                row += block.rows();
            }
            if rows != Some(row) {
                return Err(self.wrong(
                    tensor,
                    "shape",
                    format!("[{row}, ..], where the shards of the model end"),
                ));
            }
        }
        match rest.next() {
            None => Ok(sources),
            Some(_) => Err(self.no_reader(format!("a layer of more than {} shards", sources.len()))),
        }
    }

    /// A block of the rows of `tensor` from `row` on.
    fn shard(&self, block: &Block, tensor: usize, row: u64) -> Result<Source, WeightsError> {
        let &[Matrix { rows, columns }] = block.matrices.as_ref() else {
            return Err(self.no_reader(format!("shards of {} matrices", block.matrices.len())));
        };
        let found = &self.files.tensor(tensor).tensor;
        let all = match *found.shape {
            [all, width] if width == columns && row + rows <= all => all,
            _ => return Err(self.wrong(tensor, "shape", format!("[{} or more, {columns}]", row + rows))),
        };
        let native = self.plain(block)?;
        let stride = found.bytes / all.max(1);
        let slab = Slab { tensor, offset: row * stride, bytes: rows * stride };
        Ok(Source::Plain { native, stretches: vec![(slab, self.stored(tensor, native)?)] })
    }

    fn three(&self, block: &Block) -> Result<[Matrix; 3], WeightsError> {
        let matrices: Result<[Matrix; 3], _> = block.matrices.as_ref().try_into();
        matrices.map_err(|_| self.no_reader(format!("experts of {} matrices", block.matrices.len())))
    }

    /// The native format of a block that is read from numbers without scales.
    fn plain(&self, block: &Block) -> Result<FormatId, WeightsError> {
        let plain = PLAIN.iter().any(|(_, name)| *name == block.native.name()) && block.mixed.is_none();
        let what = || format!("blocks in {}", block.native.name());
        if plain { Ok(block.native) } else { Err(self.no_reader(what())) }
    }

    /// The format that a tensor is stored in: that of the block, or fp32, which is rounded as engines do.
    fn stored(&self, tensor: usize, native: FormatId) -> Result<FormatId, WeightsError> {
        let dtype = self.files.tensor(tensor).tensor.dtype.name;
        let row = PLAIN.iter().find(|(name, _)| *name == dtype);
        let format = row.and_then(|(_, format)| FormatId::named(format));
        let readable = |format: &FormatId| *format == native || dtype == "F32";
        let wanted = || {
            let of_native = PLAIN.iter().find(|(_, format)| *format == native.name());
            of_native.map_or("F32".into(), |(name, _)| format!("{name} or F32"))
        };
        format.filter(readable).ok_or_else(|| self.wrong(tensor, "type", wanted()))
    }

    fn tensor(&self, name: &str) -> Result<usize, WeightsError> {
        self.files.find(name).ok_or_else(|| self.missing(name.into()))
    }

    fn dtype(&self, tensor: usize, expected: &str) -> Result<(), WeightsError> {
        let right = self.files.tensor(tensor).tensor.dtype.name == expected;
        if right { Ok(()) } else { Err(self.wrong(tensor, "type", expected.into())) }
    }

    fn shape(&self, tensor: usize, expected: &[u64]) -> Result<(), WeightsError> {
        let right = self.files.tensor(tensor).tensor.shape == expected;
        if right { Ok(()) } else { Err(self.wrong(tensor, "shape", format!("{expected:?}"))) }
    }

    fn whole(&self, tensor: usize) -> Slab {
        Slab { tensor, offset: 0, bytes: self.files.tensor(tensor).tensor.bytes }
    }

    fn missing(&self, tensor: String) -> WeightsError {
        let (path, example) = self.files.example();
        let (example, model) = (example.map(str::to_owned), self.model.name.clone());
        WeightsError::Missing { path, tensor, example, model }
    }

    fn wrong(&self, tensor: usize, what: &'static str, expected: String) -> WeightsError {
        let placed = self.files.tensor(tensor);
        let (path, model) = (self.files.path(tensor).to_owned(), self.model.name.clone());
        let found = match what {
            "type" => placed.tensor.dtype.name.to_owned(),
            _ => format!("{:?}", placed.tensor.shape),
        };
        WeightsError::Wrong(Box::new(WrongTensor {
            path,
            tensor: placed.name.clone(),
            what,
            found,
            expected,
            model,
        }))
    }

    fn no_reader(&self, what: String) -> WeightsError {
        WeightsError::NoReader { model: self.model.name.clone(), what }
    }
}
