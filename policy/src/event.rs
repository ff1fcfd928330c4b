//! What goes in and what comes out of the controller, and the trait behind which a world lives.

use crate::directory::Note;
use crate::format::FormatId;
use crate::id::{BlockId, CheckpointId, LayerId, MoveId, ProcessorId, RequestId, TierId};
use crate::passed::Passed;
use crate::pipeline::Batch;
use crate::state_format::StateFormat;
use crate::units::{Bytes, Nanos, Time};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// A place and a format: where a copy is and how its numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Form {
    /// The memory.
    pub tier: TierId,
    /// The number format.
    pub format: FormatId,
}

/// What a copy is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Another copy of the block.
    Copy(Form),
    /// The block's recipe, followed in the tier where the copy is made.
    Recipe,
}

impl From<Form> for Source {
    fn from(form: Form) -> Source {
        Source::Copy(form)
    }
}

impl Source {
    /// The copy that is read, if it is one.
    pub fn copy(self) -> Option<Form> {
        match self {
            Source::Copy(form) => Some(form),
            Source::Recipe => None,
        }
    }

    /// The tier that bytes come from on their way to the copy `to`.
    pub fn tier(self, to: Form) -> TierId {
        self.copy().map_or(to.tier, |form| form.tier)
    }
}

/// One expert of a routed layer, over all tokens of the batch that chose it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routed {
    /// The block.
    pub block: BlockId,
    /// Tokens of the batch that chose it.
    pub tokens: u32,
    /// The sum over those tokens of the squared gate weight: what its error weighs in the layer's drift.
    pub gate_squared: f32,
}

/// What one step computes for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The request.
    pub request: RequestId,
    /// Tokens in its cache before the step.
    pub cached: u32,
    /// Tokens the step adds: one of a request that decodes, or a chunk of a prompt.
    pub tokens: u32,
    /// The accelerator that attends to it and has its cache, where several have experts of their own.
    pub rank: u32,
}

impl Slice {
    /// Tokens of the cache that are read for it: once, however many of its tokens look at them, and no more than the
    /// attention window reaches.
    pub fn seen(&self, window: Option<u32>) -> u64 {
        let (cached, tokens) = (u64::from(self.cached), u64::from(self.tokens));
        let reach = window.map_or(u64::MAX, |window| (u64::from(window) + tokens).saturating_sub(1));
        (cached + tokens).saturating_sub(1).min(reach)
    }
}

/// Which part of a layer a compute command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Attention or another mixer, and the router: its result says which experts are needed.
    Mixer,
    /// The routed blocks.
    Experts,
    /// Routed blocks that this processor computes where they are, beside the accelerator.
    Near(ProcessorId),
    /// The output head, after the last layer.
    Head,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// A request came in.
    RequestArrived {
        /// Its number, in order of arrival.
        request: RequestId,
        /// Tokens of its prompt: in the cache already where the run computes no prompts.
        context_tokens: u32,
        /// Tokens to put out.
        output_tokens: u32,
        /// Higher ones go first.
        priority: u8,
        /// Numbers of its prompt's blocks, where they are known: equal ones from the start on are equal tokens.
        prefix: Arc<[u64]>,
        /// The model that it is for, where several share the machine.
        tenant: u16,
    },
    /// The mixer of a layer is done and its router has chosen. Distinct blocks, in stored order of first choice.
    LayerRouted {
        /// The layer.
        layer: LayerId,
        /// Its choice.
        routed: Vec<Routed>,
    },
    /// The routed blocks of a layer, or one wave of them, have been computed.
    LayerDone {
        /// The layer.
        layer: LayerId,
    },
    /// A processor beside other memories has computed its share of a layer's routed blocks, or the oldest part of it.
    NearDone {
        /// The layer.
        layer: LayerId,
        /// The processor.
        by: ProcessorId,
    },
    /// The platform expects a coming layer of the running step to choose these blocks: its router was asked ahead of
    /// time. Comes before [`EventKind::LayerRouted`] of the layer being run.
    Foreseen {
        /// The coming layer.
        layer: LayerId,
        /// The expectation, in the form of a choice.
        routed: Vec<Routed>,
    },
    /// Layers that the platform had leave to go through by itself. Whatever else happened meanwhile comes in its place among them.
    Passed(Box<Passed>),
    /// The output head is done: every request of the batch whose prompt is complete has one more token.
    HeadDone,
    /// What the stage before has computed of a batch is here; at the first stage, the tokens that the last one gives.
    HandedOn(Batch),
    /// One chunk of a move, of a block's or of states', has arrived.
    ChunkDone {
        /// The move.
        id: MoveId,
        /// How long the chunk waited before its link took it up.
        queued: Nanos,
    },
    /// The time has come that a [`Command::Wake`] named.
    Woken,
    /// The weights are where the run begins with them: requests may be served from here on.
    Loaded,
    /// Others (another job, a burst of activations, a tier's owner) now take so much of a memory that blocks share: of the fast
    /// one, or of one that holds copies beside the home ones.
    MemoryPressure {
        /// The memory.
        tier: TierId,
        /// What they take in all; less than before, if they have given some back.
        reserved: Bytes,
    },
    /// A memory has failed, with all that was in it. It holds none but staged copies.
    TierLost {
        /// The memory.
        tier: TierId,
    },
    /// Of the accelerators that have experts of their own, these are lost from here on, with all that is in their memories,
    /// and no others: one that was lost before is back, with nothing.
    AcceleratorsLost {
        /// Which, from 0.
        lost: Vec<u32>,
    },
    /// The oldest chunk of a move that is under way has not arrived: a memory that it needs has failed.
    ChunkFailed {
        /// The move.
        id: MoveId,
    },
}

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When the platform saw it.
    pub at: Time,
    /// What it was.
    pub kind: EventKind,
}

/// Why a move is made; also its order on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveClass {
    /// The running step waits for it.
    Demand,
    /// A coming step will need it.
    Prefetch,
    /// A coming step may need it.
    Speculation,
    /// Nobody waits for it.
    Spill,
}

/// On which side of the link a change of format happens; what crosses the link follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncodeAt {
    /// Before the link: the destination's format crosses.
    Source,
    /// After the link: the source's format crosses.
    Destination,
}

/// One chunk of a move: the whole of it, or a range of the bytes that cross the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveChunk {
    /// The move it belongs to; chunks of one move are submitted in order.
    pub id: MoveId,
    /// What is moved.
    pub block: BlockId,
    /// What it is made of.
    pub from: Source,
    /// The copy that is made.
    pub to: Form,
    /// A copy kept in a memory that the bytes pass through, in the format in which they do; published with the other.
    pub keep: Option<Form>,
    /// Where the format changes, if it does; after a recipe, where it was followed.
    pub encode_at: EncodeAt,
    /// Why.
    pub class: MoveClass,
    /// When the copy is wanted, if that is known.
    pub deadline: Option<Time>,
    /// The first byte of this chunk among the bytes that cross the link; of a recipe, among the native bytes.
    pub offset: Bytes,
    /// The bytes of this chunk.
    pub len: Bytes,
    /// The copy is complete, and published, when this chunk has arrived.
    pub last: bool,
}

/// A copy of a checkpoint that is kept: where, and in what its states are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateForm {
    /// The memory.
    pub tier: TierId,
    /// What the states of all layers are coded in.
    pub format: StateFormat,
}

/// One end of a move of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateEnd {
    /// A request's own states in fast memory, as they are served.
    Request,
    /// A copy that is kept.
    Kept(StateForm),
}

impl StateEnd {
    /// Where it is, and in what; `fast` is the memory that compute reads.
    pub fn form(self, fast: TierId) -> StateForm {
        match self {
            StateEnd::Request => StateForm { tier: fast, format: StateFormat::SERVED },
            StateEnd::Kept(form) => form,
        }
    }
}

/// One chunk of a move of a checkpoint, the recurrent states of all layers after a prefix: to a request that goes on from it, to where it
/// is kept, or from one memory to another. A move within a memory, with the same memory at both ends, is a change of format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChunk {
    /// The move it belongs to; chunks of one move are submitted in order.
    pub id: MoveId,
    /// What is moved.
    pub checkpoint: CheckpointId,
    /// What is read.
    pub from: StateEnd,
    /// What is made.
    pub to: StateEnd,
    /// Why.
    pub class: MoveClass,
    /// The first byte of this chunk among the bytes that cross the link.
    pub offset: Bytes,
    /// The bytes of this chunk.
    pub len: Bytes,
    /// The states are complete when this chunk has arrived.
    pub last: bool,
}

impl StateChunk {
    /// What crosses: states are coded before they leave for where they are kept, and expanded where they are served.
    pub fn crossing(&self) -> StateFormat {
        match (self.from, self.to) {
            (_, StateEnd::Kept(form)) | (StateEnd::Kept(form), StateEnd::Request) => form.format,
            (StateEnd::Request, StateEnd::Request) => StateFormat::SERVED,
        }
    }
}

/// One copy a compute command reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Read {
    /// The block.
    pub block: BlockId,
    /// The copy.
    pub form: Form,
    /// Tokens that go through it.
    pub tokens: u32,
}

/// What the controller wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Make a copy of a block, or a chunk of it, from another one or by its recipe. Answered by [`EventKind::ChunkDone`].
    Move(MoveChunk),
    /// Free a copy. Takes effect at once: no compute reads it and no move writes it.
    Drop {
        /// The block.
        block: BlockId,
        /// The copy.
        form: Form,
    },
    /// Give up a move that was begun and of which no chunk is under way: its room is free.
    Cancel {
        /// The move.
        id: MoveId,
    },
    /// Run a part of a layer for the batch, after the mixers of layers without blocks: nothing is decided for those.
    Compute {
        /// The layers, by number, whose mixers are run before, in order. Mostly none.
        mixers: Range<u16>,
        /// The layer; the last one for the head.
        layer: LayerId,
        /// Which part.
        part: Part,
        /// The tokens of the batch.
        batch: Arc<[Slice]>,
        /// The copies the kernels read; empty for a part without managed blocks.
        reads: Vec<Read>,
        /// After the mixer of a layer with blocks: the platform may go on by itself up to the router of this layer, as long as
        /// all that is chosen is in fast memory in its native format, and is read there. It reports what it did as [`EventKind::Passed`].
        through: Option<LayerId>,
    },
    /// The layers of this stage are computed for a batch: what they gave goes to the next stage, where it comes as
    /// [`EventKind::HandedOn`]; the tokens that the last stage gives go to the first.
    HandOn(Batch),
    /// Move a checkpoint, or a chunk of it. Answered by [`EventKind::ChunkDone`]. A move that changes the format of a copy where it is
    /// puts the new copy in the old one's place.
    MoveState(StateChunk),
    /// Free a kept copy of a checkpoint. Takes effect at once: no move reads or writes it.
    DropState {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Where it is kept.
        tier: TierId,
    },
    /// Something to be said to the directory of copies.
    Tell(Note),
    /// Report [`EventKind::Woken`] at this time: moves that rest go on then.
    Wake {
        /// When.
        at: Time,
    },
    /// A request has all its tokens; its cache may go.
    Finish {
        /// The request.
        request: RequestId,
    },
}

impl Command {
    /// The same, with every layer reported and commanded by itself.
    pub fn layer_by_layer(mut self) -> Command {
        if let Command::Compute { through, .. } = &mut self {
            *through = None;
        }
        self
    }
}

/// A world in which commands are carried out: the simulator or a real machine.
pub trait Platform {
    /// What can go wrong in it.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The next event, in time order; `None` when nothing is left that could happen.
    fn next_event(&mut self) -> Result<Option<Event>, Self::Error>;

    /// Accepts a command. Its effects come back as events.
    fn submit(&mut self, command: Command) -> Result<(), Self::Error>;
}
