//! What a script may look at. Names and meanings are those of the decision log where both have the thing.

use rhai::{Engine, ImmutableString};

/// A signal: its name, what it says, and how it is read.
type Signal<T> = (&'static str, &'static str, fn(&mut T) -> f64);

/// A block as a script sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BlockView {
    pub(super) probability: f64,
    pub(super) popularity: f64,
    pub(super) next_use: f64,
    pub(super) layers_ahead: f64,
    pub(super) last_use: f64,
    pub(super) uses: f64,
    pub(super) gate: f64,
    pub(super) bytes: f64,
    pub(super) refetch: f64,
}

/// A way to serve a block as a script sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct WayView {
    pub(super) block: BlockView,
    pub(super) action: ImmutableString,
    pub(super) format: ImmutableString,
    pub(super) native: bool,
    pub(super) moving: f64,
    pub(super) decode: f64,
    pub(super) drift: f64,
    pub(super) bytes: f64,
    pub(super) tokens: f64,
}

/// The signals of a block.
pub const BLOCK_SIGNALS: [(&str, &str); BLOCK.len()] = {
    let mut named = [("", ""); BLOCK.len()];
    let mut index = 0;
    while index < BLOCK.len() {
        named[index] = (BLOCK[index].0, BLOCK[index].1);
        index += 1;
    }
    named
};

const BLOCK: [Signal<BlockView>; 9] = [
    ("probability", "that it is needed when its layer comes next, from the router's history", |b| {
        b.probability
    }),
    ("popularity", "visits a token after the next visit, from the router's history", |b| b.popularity),
    ("next_use", "tokens until its next use, expected", |b| b.next_use),
    ("layers_ahead", "layer steps until its layer comes", |b| b.layers_ahead),
    ("last_use", "layer steps since it was demanded; 1e18 if never", |b| b.last_use),
    ("uses", "layer steps that demanded it so far", |b| b.uses),
    ("gate", "mean squared gate weight of a token, when chosen", |b| b.gate),
    ("bytes", "of fast memory: what its copies take, or in full precision where it has none", |b| b.bytes),
    ("refetch", "nanoseconds that having it again in full precision takes on an idle link", |b| b.refetch),
];

const WAY: [Signal<WayView>; 5] = [
    ("moving", "nanoseconds that the running step waits longer for it", |w| w.moving),
    ("decode", "nanoseconds to expand the copy before use", |w| w.decode),
    ("drift", "squared drift that it adds to the layer, at the upper bound", |w| w.drift),
    ("bytes", "of fast memory that the copy takes", |w| w.bytes),
    ("tokens", "of the batch that go through the block", |w| w.tokens),
];

/// The signals of a way to serve a block, beside those of `way.block`.
pub const WAY_SIGNALS: [(&str, &str); WAY.len() + 3] = {
    let mut named = [
        ("action", "fetch, read, expand, upgrade, in_place or skip"),
        ("format", "the format that is read"),
        ("native", "whether that is the block's full precision"),
        ("", ""),
        ("", ""),
        ("", ""),
        ("", ""),
        ("", ""),
    ];
    let mut index = 0;
    while index < WAY.len() {
        named[index + 3] = (WAY[index].0, WAY[index].1);
        index += 1;
    }
    named
};

/// Makes the signals known to an engine.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<BlockView>("Block").register_type_with_name::<WayView>("Way");
    for (name, _, get) in BLOCK {
        engine.register_get(name, get);
    }
    for (name, _, get) in WAY {
        engine.register_get(name, get);
    }
    engine.register_get("action", |way: &mut WayView| way.action.clone());
    engine.register_get("format", |way: &mut WayView| way.format.clone());
    engine.register_get("native", |way: &mut WayView| way.native);
    engine.register_get("block", |way: &mut WayView| way.block);
}
