//! The keys of `checkpoints`: where the states of recurrent layers are kept for prompts that begin alike.

use crate::diagnostics::{Report, Wrong, one_of};
use crate::keys::Type::{AboveZero, Either, Map, Name, Number, Slots, Whole};
use crate::keys::{Key, RowKey, Rows, Table};
use crate::machine::tier_named;
use crate::reader::{Field, name_of, names};
use crate::scenario::{Kv, slots_size};
use crate::units::{SIZE, at_most, between, size_above_zero, slots};
use policy::checkpoints::{CheckpointSpec, Eviction, Place, PoolSpec};
use policy::state_format::{STATE_FORMATS, StateFormat};
use policy::{Bytes, Machine, Model};

/// Tokens between two checkpoints, and checkpoints of a prompt, at most.
const MOST_TOKENS: u64 = 1 << 24;
const MOST_COUNT: u64 = 64;
/// The largest weight of operations saved.
const MOST_ALPHA: f64 = 1e6;

/// The keys of `checkpoints`.
pub(crate) static CHECKPOINTS: Table = Table {
    name: "checkpoints",
    about: "Checkpoints of recurrent states, so that prompts which begin alike go on from where they part",
    open: false,
    keys: &[
        Key::default(
            "place",
            Name(|| names(PLACES)),
            "branch",
            "Where they are made: `every` so many tokens, at the `branch` where a prompt parts from earlier ones, or at the `optimal` depths; each also at the end of the prompt",
        ),
        Key::default(
            "every",
            Whole(1, MOST_TOKENS),
            "2048",
            "Tokens from one to the next, where `place` is `every`: whole blocks of the prompts' numbers; fewer where the kernels have no state at that place, but at least one of their chunks",
        ),
        Key::default(
            "count",
            Whole(1, MOST_COUNT),
            "4",
            "Checkpoints of a prompt beside the one at its end, where `place` is `optimal`",
        ),
        Key::default(
            "evict",
            Name(|| names(EVICTIONS)),
            "benefit_per_byte",
            "What goes first: least recently used, the least of Marconi's score, or what loses least time for a byte",
        ),
        Key::default(
            "alpha",
            Number(0.0, MOST_ALPHA),
            "1",
            "The weight of operations saved against recency in Marconi's score",
        ),
        Key::required(
            "pools",
            crate::keys::Type::Rows(&POOLS),
            "{ dram: { room: 32 GiB, format: int4 } }",
            "The memories that hold them",
        ),
    ],
};

static POOLS: Rows = Rows {
    about: "What a tier gives to checkpoints; each is written to every one that has room",
    key: RowKey::Any,
    value: Map(&POOL),
    merges: false,
};

static POOL: Table = Table {
    name: "pool",
    about: "Checkpoints in one tier",
    open: false,
    keys: &[
        Key::required(
            "room",
            Either(&AboveZero(&SIZE), &Slots),
            "32 GiB",
            "What they may take: a size, or so many of the model's states in the pool's format",
        ),
        Key::default(
            "format",
            Name(state_formats),
            "fp16",
            "What states are coded in on their way there, once and from what was computed",
        ),
        Key::optional(
            "reduce_to",
            Name(state_formats),
            "int4",
            "What states that are there as they were computed may be coded in to make room",
        ),
    ],
};

/// A name, and what it makes of `every` and `count`.
type PlaceOf = (&'static str, fn(u32, u32) -> Place);

const PLACES: &[PlaceOf] = &[
    ("every", |every, _| Place::Every(every)),
    ("branch", |_, _| Place::Branch),
    ("optimal", |_, count| Place::Optimal(count)),
];

/// A name, and what it makes of `alpha`.
type EvictionOf = (&'static str, fn(f64) -> Eviction);

const EVICTIONS: &[EvictionOf] = &[
    ("lru", |_| Eviction::Lru),
    ("marconi", |alpha| Eviction::Marconi { alpha }),
    ("benefit_per_byte", |_| Eviction::BenefitPerByte),
];

fn state_formats() -> Vec<&'static str> {
    STATE_FORMATS.iter().map(|code| code.name).collect()
}

fn state_format(written: &str) -> Result<StateFormat, Wrong> {
    StateFormat::named(written).ok_or_else(|| {
        Wrong::new(format!("`{written}` is no format of states"), one_of(written, state_formats()))
    })
}

/// Reads `checkpoints`.
pub(crate) fn checkpoints(
    report: &mut Report,
    field: &Field<'_>,
    machine: Option<&Machine>,
    model: Option<&Model>,
) -> Option<CheckpointSpec> {
    let keys = field.keys(report, &CHECKPOINTS)?;
    let place = keys.or_default(report, "place", name_of("place", PLACES));
    let every = keys.or_default(report, "every", at_most(MOST_TOKENS));
    let count = keys.or_default(report, "count", at_most(MOST_COUNT));
    let evict = keys.or_default(report, "evict", name_of("eviction policy", EVICTIONS));
    let alpha = keys.or_default(report, "alpha", |text| between(text, 0.0, MOST_ALPHA));
    let pools = keys.need(report, "pools").and_then(|pools| read_pools(report, &pools, machine, model));
    let spec = CheckpointSpec { place: place?(every?, count?), evict: evict?(alpha?), pools: pools? };
    if model?.is_recurrent() {
        return Some(spec);
    }
    let message = "the model has no recurrent layers, so its key-value cache is all that prefixes need";
    field.key_error(report, Wrong::new(message, "leave `checkpoints` out"));
    None
}

fn read_pools(
    report: &mut Report,
    field: &Field<'_>,
    machine: Option<&Machine>,
    model: Option<&Model>,
) -> Option<Vec<PoolSpec>> {
    let fields = field.fields(report, "tier names, each with its room: { dram: { room: 32 GiB } }")?;
    let pools: Vec<_> = fields
        .entries
        .iter()
        .map(|entry| read_pool(report, &fields.field(entry), &entry.key, machine.zip(model)))
        .collect();
    let mut pools: Vec<PoolSpec> = pools.into_iter().collect::<Option<_>>()?;
    if pools.is_empty() {
        field.error(report, Wrong::new("no pool", "at least one: { dram: { room: 32 GiB } }"));
        return None;
    }
    pools.sort_by_key(|pool| (machine.map(|machine| machine.tier(pool.tier).class), pool.tier));
    Some(pools)
}

fn read_pool(
    report: &mut Report,
    field: &Field<'_>,
    name: &str,
    ground: Option<(&Machine, &Model)>,
) -> Option<PoolSpec> {
    let keys = field.keys(report, &POOL)?;
    let format = keys.or_default(report, "format", state_format);
    let reduce_to = keys.optional(report, "reduce_to", state_format);
    let room_field = keys.need(report, "room")?;
    let written = room_field.read(report, |text| match slots(text) {
        Some(slots) => slots.map(Err),
        None => size_above_zero(text).map(Ok),
    });
    let (format, reduce_to, (machine, model)) = (format?, reduce_to?, ground?);
    let tier = tier_named(name, &machine.tiers).map_err(|wrong| field.key_error(report, wrong)).ok()?;
    let described = machine.tier(tier);
    let slot = model.state_bytes(format).round_up(described.granularity);
    let room: Bytes = match written? {
        Ok(size) => size,
        Err(slots) => slots_size(slots, slot),
    };
    if room > described.capacity {
        let message = format!("{room} is more than the {} that {name} has", described.capacity);
        room_field.error(report, Wrong::new(message, "less room, or another tier"));
        return None;
    }
    if room < slot {
        let message = format!("{room} cannot hold one state of {slot}");
        room_field.error(report, Wrong::new(message, "at least `1 slots`"));
        return None;
    }
    if let Some(reduced) = reduce_to
        .filter(|reduced| !format.is_exact() || model.state_bytes(*reduced) >= model.state_bytes(format))
    {
        let message = format!("{} cannot be reduced to {}", format.name(), reduced.name());
        let hint = "a state is coded once, from fp32 or fp16, in a format of fewer bits";
        keys.get("reduce_to")?.error(report, Wrong::new(message, hint));
        return None;
    }
    Some(PoolSpec { tier, room, format, reduce_to })
}

/// Checks that prefixes are kept where there are checkpoints, and that checkpoints are where a model needs them for prefixes.
pub(crate) fn fits_cache(
    report: &mut Report,
    (kv_field, kv): (Option<&Field<'_>>, Option<&Kv>),
    (field, spec): (Option<&Field<'_>>, Option<&CheckpointSpec>),
    model: Option<&Model>,
) -> bool {
    let keeps = kv.is_none_or(|kv| matches!(kv, Kv::Paged(paged) if paged.prefixes));
    if let Some(field) = field.filter(|_| spec.is_some() && !keeps) {
        let hint = "write `kv: { paged: { most: 20 GiB, prefixes: true } }` too";
        field.key_error(report, Wrong::new("checkpoints, but no prefixes are kept", hint));
        return false;
    }
    let needs = kv.is_some() && keeps && field.is_none() && model.is_some_and(Model::is_recurrent);
    if let Some(kv_field) = kv_field.filter(|_| needs) {
        let message =
            "the model has recurrent layers, so prefixes are of use only with checkpoints of their states";
        let hint = "write `checkpoints: { pools: { dram: { room: 32 GiB } } }` too, or leave out `prefixes`";
        kv_field.error(report, Wrong::new(message, hint));
    }
    !needs
}
