//! A model as `models` lists it, and how one is put together layer by layer.

use crate::diagnostics::{Report, Wrong};
use crate::gguf;
use crate::phases::{PHASES, PIPELINE, pipeline};
use crate::reader::Field;
use crate::shape::{number_type, shape};
use crate::tree::Value;
use policy::model::{Block, BlockKind, Latent, Layer, Matrix, RecurrentState};
use policy::phase::{Phase, Work};
use policy::state_format::StateFormat;
use policy::{BlockId, Bytes, FormatId, LayerId, Model};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Blocks a model may have.
pub(crate) const MOST_BLOCKS: u64 = 1 << 20;

/// What `models` tells of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelFacts {
    /// Its name in the catalogue, or its file's.
    pub name: String,
    /// Layers.
    pub layers: u32,
    /// Blocks in the layer that has most: routed experts, or shards of a dense layer's matrices.
    pub blocks_per_layer: u32,
    /// Blocks a token selects in that layer.
    pub selected: u32,
    /// The format that most of its blocks' bytes are published in.
    pub native: &'static str,
    /// Bytes of the largest block in its native format.
    pub block_bytes: Bytes,
    /// Bytes of all blocks in their native formats: what moves.
    pub managed_bytes: Bytes,
    /// Bytes of everything that never moves.
    pub resident_bytes: Bytes,
    /// Key-value cache bytes a token leaves in all layers.
    pub kv_bytes_per_token: Bytes,
    /// Parameters, all of them.
    pub parameters: u64,
    /// Parameters one token uses; the embedding counts as a whole.
    pub active_parameters: u64,
}

/// A model with its facts.
pub(crate) struct Imported {
    pub(crate) model: Model,
    pub(crate) facts: ModelFacts,
}

/// Reads a `config.json`, or the GGUF file that the key `gguf` names; reports what is missing.
pub(crate) fn import(report: &mut Report, field: &Field<'_>, name: &str) -> Option<Imported> {
    let fields = field.fields(report, "a config, or `gguf: model.gguf`")?;
    let given = |path: &Field<'_>| !matches!(path.node.value, Value::Null);
    if let Some(path) = fields.get(gguf::KEY).filter(given) {
        let alone = fields.entries.len() == 1;
        if !alone {
            path.key_error(
                report,
                Wrong::new("a GGUF file says all there is to say", "leave out the other keys"),
            );
        }
        return gguf::import(report, &path).filter(|_| alone);
    }
    let phases = match fields.get(PHASES).filter(given) {
        Some(phases) => {
            let dtype = number_type(report, &fields)?;
            Some(pipeline(report, &fields, &phases, dtype)?)
        }
        None => None,
    };
    let is_pipeline = |field: Field<'_>| matches!(&field.node.value, Value::Scalar(kind) if kind == PIPELINE);
    if fields.get("model_type").is_some_and(is_pipeline) {
        let Some(phases) = phases else {
            let hint = "add `phases: { transformer: { steps: 28, tokens: 4096, layers: [...] } }`";
            field.error(report, Wrong::new(format!("`{PHASES}` is missing"), hint));
            return None;
        };
        let mut assembly = Assembly::new(name, Resident::default(), Bytes::ZERO);
        phases.add_to(&mut assembly);
        return Some(assembly.finish());
    }
    let shape = shape(report, field)?;
    let blocks = shape.layers * shape.experts.as_ref().map_or(1, |experts| experts.count);
    if blocks > MOST_BLOCKS {
        field.error(report, Wrong::new(format!("{blocks} blocks"), format!("at most {MOST_BLOCKS}")));
        return None;
    }
    Some(shape.assemble(name, phases.as_ref()).finish())
}

/// Weights outside the blocks: what they take, and what they cost.
#[derive(Clone, Copy, Default)]
pub(crate) struct Resident {
    pub(crate) bytes: Bytes,
    /// All weights.
    pub(crate) parameters: u64,
    /// Those that a token is multiplied with.
    pub(crate) multiplied: u64,
}

/// One block's weights.
#[derive(Clone)]
pub(crate) struct Weights {
    pub(crate) matrices: Arc<[Matrix]>,
    pub(crate) native: FormatId,
    /// Exact bytes, where the matrices are in several formats.
    pub(crate) mixed: Option<Bytes>,
}

/// A layer that is put together.
pub(crate) struct Part {
    pub(crate) resident: Resident,
    /// Operations of attention for a token and one that it looks at.
    pub(crate) flops_per_pair: u64,
    /// Where the cache has latent vectors.
    pub(crate) latent: Option<Latent>,
    pub(crate) kv_heads: u32,
    pub(crate) kv_per_token: Bytes,
    /// The recurrent state that a request keeps.
    pub(crate) state: Option<RecurrentState>,
    /// Operations that a recurrence takes for a token, beside its weights.
    pub(crate) scan: u64,
    /// One token's activations, in bytes.
    pub(crate) activations: Bytes,
    pub(crate) window: Option<u32>,
    pub(crate) blocks: Vec<(BlockKind, Weights)>,
    /// How many blocks a token selects.
    pub(crate) selected: u32,
    /// Tokens of a sequence that go through each block, where that is not all of them.
    pub(crate) rows: Vec<u32>,
    /// Whether tokens look both ways.
    pub(crate) bidirectional: bool,
}

/// A model that is put together.
pub(crate) struct Assembly {
    model: Model,
    parameters: u64,
    active: u64,
}

impl Assembly {
    /// A model without layers. `head` is what is read for every token.
    pub(crate) fn new(name: &str, outside: Resident, head: Bytes) -> Assembly {
        let model = Model {
            name: name.to_owned(),
            resident: outside.bytes,
            head_read: head,
            head_flops_per_token: 2 * outside.multiplied,
            ..Model::default()
        };
        Assembly { model, parameters: outside.parameters, active: outside.parameters }
    }

    /// Adds the next layer.
    pub(crate) fn layer(&mut self, part: Part) {
        let layer = LayerId(self.model.layers.len() as u16);
        let count = part.blocks.len() as u64;
        let elements: u64 = part
            .blocks
            .iter()
            .map(|(_, weights)| weights.matrices.iter().map(|matrix| matrix.elements()).sum::<u64>())
            .sum();
        self.parameters += part.resident.parameters + elements;
        // The experts of a layer are alike; where a token selects all blocks, this is their sum.
        let used = u128::from(elements) * u128::from(part.selected) / u128::from(count.max(1));
        self.active += part.resident.parameters + used as u64;
        self.model.layers.push(Layer {
            resident: part.resident.bytes,
            flops_per_token: 2 * part.resident.multiplied + part.scan,
            flops_per_pair: part.flops_per_pair,
            latent: part.latent,
            kv_heads: part.kv_heads,
            kv_per_token: part.kv_per_token,
            activations: part.activations,
            state: part.state.map_or(Bytes::ZERO, |state| state.bytes(StateFormat::SERVED)),
            recurrent: part.state,
            window: part.window,
            first_block: BlockId(self.model.blocks.len() as u32),
            blocks: count as u32,
            selected: part.selected,
            rows: part.rows.into(),
            bidirectional: part.bidirectional,
        });
        self.model.blocks.extend(part.blocks.into_iter().zip(0..).map(|((kind, weights), index)| Block {
            kind,
            layer,
            index,
            matrices: weights.matrices,
            native: weights.native,
            mixed: weights.mixed,
            recipe: None,
        }));
    }

    /// The layers added since the last phase are one.
    pub(crate) fn end_phase(&mut self, name: &str, work: Work, tolerance: Vec<f64>) {
        let first = self.model.phases.last().map_or(0, |phase| phase.layers.end);
        let layers = first..self.model.layers.len() as u16;
        self.model.phases.push(Phase {
            name: name.to_owned(),
            layers,
            work,
            tenant: 0,
            head: None,
            tolerance,
        });
    }

    /// The model with its facts.
    pub(crate) fn finish(self) -> Imported {
        let Assembly { model, parameters, active } = self;
        let widest = model.layers.iter().max_by_key(|layer| layer.blocks);
        let mut by_format: BTreeMap<FormatId, u64> = BTreeMap::new();
        for block in &model.blocks {
            *by_format.entry(block.native).or_default() += block.bytes(block.native).0;
        }
        let facts = ModelFacts {
            name: model.name.clone(),
            layers: model.layers.len() as u32,
            blocks_per_layer: widest.map_or(0, |layer| layer.blocks),
            selected: widest.map_or(0, |layer| layer.selected),
            native: by_format.iter().max_by_key(|(_, bytes)| **bytes).map_or("", |(format, _)| format.name()),
            block_bytes: model.largest_block(),
            managed_bytes: Bytes(by_format.values().sum()),
            resident_bytes: model.resident_bytes(),
            kv_bytes_per_token: model.layers.iter().map(|layer| layer.kv_per_token).sum(),
            parameters,
            active_parameters: active,
        };
        Imported { model, facts }
    }
}
