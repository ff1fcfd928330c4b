//! The keys `phases` and `image` of a model: the phases that a request goes through, each with its own layers, matrix by
//! matrix. A diffusion pipeline is nothing else (`model_type: pipeline`); before the decoder of a language model, phases
//! encode what is not text.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{Either, Fraction, List, Map, Name, Whole};
use crate::keys::{Key, RowKey, Rows, Table, Type};
use crate::model::{Assembly, MOST_BLOCKS, Part, Resident, Weights};
use crate::reader::{Field, Fields, Keys, name_of, names};
use crate::tree::Value;
use crate::units::{fraction, whole};
use crate::weights::{largest_shard, shards};
use policy::model::{BlockKind, Matrix};
use policy::phase::Work;
use policy::{Bytes, FormatId};

/// The `model_type` of a model that is its phases and nothing else.
pub(crate) const PIPELINE: &str = "pipeline";
/// The key of the phases.
pub(crate) const PHASES: &str = "phases";

/// The longest side of an image, in pixels.
const LONGEST_SIDE: u64 = 1 << 13;
/// Tokens of a sequence.
const MOST_TOKENS: u64 = 1 << 26;
/// The longest side of a matrix.
const WIDEST: u64 = 1 << 20;
const MOST_STEPS: u64 = 1 << 16;
const MOST_SEQUENCES: u64 = 16;
const MOST_LAYERS: u64 = 4096;
const MOST_MATRICES: u64 = 1 << 12;
const MOST_VECTORS: u64 = 1 << 32;

const KINDS: &[(&str, BlockKind)] = &[("attention", BlockKind::Attention), ("dense", BlockKind::Dense)];

/// The type of `image`.
pub(crate) const IMAGE_TYPE: Type = Map(&IMAGE);

static IMAGE: Table = Table {
    name: "image",
    about: "The size of the images that are made or looked at",
    open: false,
    keys: &[
        Key::required("width", Whole(1, LONGEST_SIDE), "1024", "Pixels of a row"),
        Key::required("height", Whole(1, LONGEST_SIDE), "1024", "Pixels of a column"),
    ],
};

/// The type of `phases`.
pub(crate) const PHASES_TYPE: Type = Type::Rows(&Rows {
    about: "The phases that a request goes through, by name, in the order they run",
    key: RowKey::Any,
    value: Map(&PHASE),
    merges: true,
});

static PHASE: Table = Table {
    name: "phase",
    about: "Layers that run together, over whole sequences",
    open: false,
    keys: &[
        Key::default("steps", Whole(1, MOST_STEPS), "1", "How often a request goes through it"),
        Key::default(
            "sequences",
            Whole(1, MOST_SEQUENCES),
            "1",
            "Sequences of each step: 2 with classifier-free guidance, which computes with and without the prompt",
        ),
        Key::required("tokens", SEQUENCE, "{ pixels: 16, text: 512 }", "Tokens of a sequence"),
        Key::optional(
            "tolerance",
            List(&Fraction),
            "[1, 0.5]",
            "The share of the drift budget that a step may use, at evenly spaced points from the first step to the last",
        ),
        Key::required(
            "layers",
            List(&Map(&LAYERS)),
            "[{ blocks: [{ rows: 64, columns: 64 }] }]",
            "Its layers, in the order they run",
        ),
    ],
};

const SEQUENCE: Type = Either(&Whole(1, MOST_TOKENS), &Map(&TOKEN_COUNT));
const TOKENS: Type = Either(&Whole(0, MOST_TOKENS), &Map(&TOKEN_COUNT));

static TOKEN_COUNT: Table = Table {
    name: "phase_tokens",
    about: "Tokens by the size of the image",
    open: false,
    keys: &[
        Key::required(
            "pixels",
            Whole(1, LONGEST_SIDE),
            "16",
            "One for each square of the image with a side of so many pixels",
        ),
        Key::default("text", Whole(0, MOST_TOKENS), "0", "So many more"),
    ],
};

static LAYERS: Table = Table {
    name: "phase_layers",
    about: "Layers that are alike",
    open: false,
    keys: &[
        Key::default("count", Whole(1, MOST_LAYERS), "1", "How many follow each other"),
        Key::optional(
            "attention",
            Map(&ATTENTION),
            "{ heads: 24, head_dim: 128 }",
            "Every token of a sequence looks at every other; left out, none does",
        ),
        Key::default(
            "vectors",
            Whole(0, MOST_VECTORS),
            "0",
            "Numbers of norms and biases, which stay resident",
        ),
        Key::required(
            "blocks",
            List(&Map(&BLOCK)),
            "[{ rows: 3072, columns: 3072 }]",
            "Its matrices, which are its blocks; large ones are cut by rows",
        ),
    ],
};

static ATTENTION: Table = Table {
    name: "phase_attention",
    about: "Attention over whole sequences",
    open: false,
    keys: &[
        Key::required("heads", Whole(1, MOST_LAYERS), "24", "Heads"),
        Key::required("head_dim", Whole(1, WIDEST), "128", "Width of each"),
    ],
};

static BLOCK: Table = Table {
    name: "phase_block",
    about: "A matrix; a convolution is one of its outputs by all that each of them sees, once a pixel",
    open: false,
    keys: &[
        Key::required("rows", Whole(1, WIDEST), "3072", "Outputs"),
        Key::required("columns", Whole(1, WIDEST), "3072", "Inputs of each"),
        Key::default("count", Whole(1, MOST_MATRICES), "1", "How many there are alike"),
        Key::default("kind", Name(|| names(KINDS)), "dense", "Which floor of the guard binds it"),
        Key::optional(
            "tokens",
            TOKENS,
            "512",
            "Tokens of a sequence that go through it: 0 for a table that is looked up; left out, all",
        ),
    ],
};

/// The phases of a model, as they were read.
pub(crate) struct Pipeline {
    phases: Vec<PhaseShape>,
    dtype: FormatId,
}

struct PhaseShape {
    name: String,
    work: Work,
    tolerance: Vec<f64>,
    layers: Vec<LayerShape>,
}

struct LayerShape {
    count: u64,
    attention: Option<(u64, u64)>,
    vectors: u64,
    matrices: Vec<MatrixShape>,
}

struct MatrixShape {
    matrix: Matrix,
    count: u64,
    kind: BlockKind,
    /// Rows of a step that go through it, for each sequence.
    tokens: u32,
}

/// Width and height in pixels, where the model says.
type Image = Option<(u64, u64)>;

/// Reads the phases of a model; its other keys are `model`.
pub(crate) fn pipeline(
    report: &mut Report,
    model: &Fields<'_>,
    field: &Field<'_>,
    dtype: FormatId,
) -> Option<Pipeline> {
    let image = match model.get("image") {
        Some(field) => Some(read_image(report, &field)?),
        None => None,
    };
    let rows = field.fields(report, "the phases by name, in the order they run")?;
    let phases: Vec<_> =
        rows.entries.iter().map(|entry| read_phase(report, &entry.key, &rows.field(entry), image)).collect();
    let phases: Vec<PhaseShape> = phases.into_iter().collect::<Option<_>>()?;
    if phases.is_empty() {
        field.error(report, Wrong::new("no phase", "at least one"));
        return None;
    }
    let of_layer = |layer: &LayerShape| {
        layer.count.saturating_mul(layer.shards().map(|(_, shards)| shards.count() as u64).sum())
    };
    let layers = || phases.iter().flat_map(|phase| &phase.layers);
    let (count, blocks) =
        (layers().map(|layer| layer.count).sum::<u64>(), layers().map(of_layer).sum::<u64>());
    if count > MOST_LAYERS || blocks > MOST_BLOCKS {
        let message = format!("{count} layers of {blocks} blocks");
        field.error(
            report,
            Wrong::new(message, format!("at most {MOST_LAYERS} layers, {MOST_BLOCKS} blocks")),
        );
        return None;
    }
    Some(Pipeline { phases, dtype })
}

fn read_image(report: &mut Report, field: &Field<'_>) -> Option<(u64, u64)> {
    let keys = field.keys(report, &IMAGE)?;
    let (width, height) = (
        keys.required(report, "width", up_to(1, LONGEST_SIDE)),
        keys.required(report, "height", up_to(1, LONGEST_SIDE)),
    );
    width.zip(height)
}

/// A whole number between two bounds.
fn up_to(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, Wrong> {
    move |text| match whole(text)? {
        number if (least..=most).contains(&number) => Ok(number),
        number => Err(Wrong::new(format!("{number} is out of range"), format!("{least} to {most}"))),
    }
}

fn read_phase(report: &mut Report, name: &str, field: &Field<'_>, image: Image) -> Option<PhaseShape> {
    let keys = field.keys(report, &PHASE)?;
    let steps = keys.or_default(report, "steps", up_to(1, MOST_STEPS));
    let sequences = keys.or_default(report, "sequences", up_to(1, MOST_SEQUENCES));
    let tokens = keys.need(report, "tokens").and_then(|field| read_tokens(report, &field, image));
    let tolerance = keys.get("tolerance").map_or(Some(vec![]), |field| {
        let shares: Vec<_> = field.items().iter().map(|item| item.read(report, fraction)).collect();
        shares.into_iter().collect()
    });
    if let Some(field) = keys.get("tokens").filter(|_| tokens == Some(0)) {
        field.error(report, Wrong::new("a sequence of zero tokens", "at least 1"));
        return None;
    }
    let layers = keys.need(report, "layers").and_then(|field| {
        let layers: Vec<_> =
            field.items().iter().map(|item| read_layer(report, item, image, tokens)).collect();
        layers.into_iter().collect::<Option<Vec<_>>>()
    })?;
    if layers.is_empty() {
        field.error(report, Wrong::new("a phase without layers", "at least one"));
        return None;
    }
    let work = Work::Steps { steps: steps? as u32, sequences: sequences? as u32, tokens: tokens? };
    Some(PhaseShape { name: name.to_owned(), work, tolerance: tolerance?, layers })
}

/// A number of tokens: as it is written, or by the size of the image.
fn read_tokens(report: &mut Report, field: &Field<'_>, image: Image) -> Option<u32> {
    if let Value::Scalar(_) = field.node.value {
        return field.read(report, up_to(0, MOST_TOKENS)).map(|tokens| tokens as u32);
    }
    let keys = field.keys(report, &TOKEN_COUNT)?;
    let pixels = keys.required(report, "pixels", up_to(1, LONGEST_SIDE));
    let text = keys.or_default(report, "text", up_to(0, MOST_TOKENS));
    let Some((width, height)) = image else {
        let wrong = Wrong::new(
            "the model does not say how large its images are",
            "add `image: { width: 1024, height: 1024 }`",
        );
        field.error(report, wrong);
        return None;
    };
    let pixels = pixels?;
    let tokens = width.div_ceil(pixels) * height.div_ceil(pixels) + text?;
    if tokens > MOST_TOKENS {
        field.error(report, Wrong::new(format!("{tokens} tokens"), format!("at most {MOST_TOKENS}")));
        return None;
    }
    Some(tokens as u32)
}

fn read_layer(
    report: &mut Report,
    field: &Field<'_>,
    image: Image,
    tokens: Option<u32>,
) -> Option<LayerShape> {
    let keys = field.keys(report, &LAYERS)?;
    let count = keys.or_default(report, "count", up_to(1, MOST_LAYERS));
    let vectors = keys.or_default(report, "vectors", up_to(0, MOST_VECTORS));
    let attention = match keys.get("attention") {
        Some(field) => read_attention(report, &field).map(Some),
        None => Some(None),
    };
    let matrices = keys.need(report, "blocks").and_then(|field| {
        let matrices: Vec<_> =
            field.items().iter().map(|item| read_matrix(report, item, image, tokens)).collect();
        matrices.into_iter().collect::<Option<Vec<_>>>()
    })?;
    if matrices.is_empty() {
        field.error(report, Wrong::new("a layer without blocks", "at least one"));
        return None;
    }
    Some(LayerShape { count: count?, attention: attention?, vectors: vectors?, matrices })
}

fn read_attention(report: &mut Report, field: &Field<'_>) -> Option<(u64, u64)> {
    let keys = field.keys(report, &ATTENTION)?;
    let heads = keys.required(report, "heads", up_to(1, MOST_LAYERS));
    let width = keys.required(report, "head_dim", up_to(1, WIDEST));
    heads.zip(width)
}

fn read_matrix(
    report: &mut Report,
    field: &Field<'_>,
    image: Image,
    tokens: Option<u32>,
) -> Option<MatrixShape> {
    let keys: Keys<'_> = field.keys(report, &BLOCK)?;
    let rows = keys.required(report, "rows", up_to(1, WIDEST));
    let columns = keys.required(report, "columns", up_to(1, WIDEST));
    let count = keys.or_default(report, "count", up_to(1, MOST_MATRICES));
    let kind = keys.or_default(report, "kind", name_of("kind of block", KINDS));
    let tokens = match keys.get("tokens") {
        Some(field) => read_tokens(report, &field, image),
        None => tokens,
    };
    let matrix = Matrix { rows: rows?, columns: columns? };
    Some(MatrixShape { matrix, count: count?, kind: kind?, tokens: tokens? })
}

impl LayerShape {
    /// Each matrix with the shards it is cut into.
    fn shards(&self) -> impl Iterator<Item = (&MatrixShape, impl Iterator<Item = Matrix>)> {
        let each = |shape: &MatrixShape| std::iter::repeat_n(shape.matrix, shape.count as usize);
        let most = largest_shard(self.matrices.iter().flat_map(each));
        let copies = self.matrices.iter().flat_map(|shape| std::iter::repeat_n(shape, shape.count as usize));
        copies.map(move |shape| (shape, shards(shape.matrix, most)))
    }

    fn part(&self, dtype: FormatId) -> Part {
        let (mut blocks, mut rows) = (Vec::new(), Vec::new());
        for (shape, shards) in self.shards() {
            for shard in shards {
                blocks.push((shape.kind, Weights { matrices: [shard].into(), native: dtype, mixed: None }));
                rows.push(shape.tokens);
            }
        }
        let (heads, width) = self.attention.unwrap_or((1, 0));
        Part {
            resident: Resident {
                bytes: dtype.bytes(self.vectors, 0),
                parameters: self.vectors,
                multiplied: 0,
            },
            flops_per_pair: 4 * heads * width,
            latent: None,
            kv_heads: heads as u32,
            kv_per_token: Bytes::ZERO,
            state: None,
            scan: 0,
            activations: dtype.bytes(heads * width, 0),
            window: None,
            selected: blocks.len() as u32,
            blocks,
            rows,
            bidirectional: true,
        }
    }
}

impl Pipeline {
    /// Adds the phases to a model.
    pub(crate) fn add_to(&self, assembly: &mut Assembly) {
        for phase in &self.phases {
            for layer in &phase.layers {
                (0..layer.count).for_each(|_| assembly.layer(layer.part(self.dtype)));
            }
            assembly.end_phase(&phase.name, phase.work, phase.tolerance.clone());
        }
    }
}
