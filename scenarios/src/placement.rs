//! The keys of `memory`, `kv`, `home`, `encoded`, `recode` and `load`: what fits where, checked before a run starts.

use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{AboveZero, Either, Flag, Map, Quantity, Slots, Text, Whole};
use crate::keys::{Choice, Key, RowKey, Rows, Table, Type};
use crate::machine::tier_named;
use crate::pressure::{Pressure, Taken};
use crate::reader::{Field, Keys, flag, format};
use crate::scenario::{Cap, Kv, Paged, Scenario, slots_size};
use crate::sensitivity::Sensitivity;
use crate::tree::Value;
use crate::units::{SIZE, TIME, size, size_above_zero, slots, time_above_zero, whole};
use policy::checkpoints::PoolSpec;
use policy::homes::Homes;
use policy::machine::Class;
use policy::model::Layer;
use policy::{Bytes, FormatId, MAX_FORMS, Machine, Model, TierId};
use std::collections::BTreeMap;

/// Tokens of context a request is given room for where the scenario sets no `kv`.
pub const CONTEXT_GUESS: u32 = 4096;

/// The rows of `memory`.
pub(crate) static MEMORY: Rows = Rows {
    about: "A cap on a tier: a size that has weights and caches in it, or so many slots beside what is resident",
    key: RowKey::Any,
    value: Either(&AboveZero(&SIZE), &Slots),
    merges: true,
};

/// Key-value caches: a size that is set aside for them, or pages that they take as they grow.
pub(crate) const KV: Type = Either(&Quantity(&SIZE), &Type::Choice(KVS));

const KVS: &[Choice] = &[Choice {
    name: "paged",
    about: "Caches take pages as they grow, and blocks give way; a request without room is pre-empted and computed anew",
    takes: Map(&PAGED),
}];

static PAGED: Table = Table {
    name: "paged",
    about: "A key-value cache in pages, which shares fast memory with blocks",
    open: false,
    keys: &[
        Key::default("page", Whole(1, 1 << 16), "16", "Tokens of a page"),
        Key::required(
            "most",
            AboveZero(&SIZE),
            "20 GiB",
            "The most that caches may take; blocks keep the rest",
        ),
        Key::default(
            "prefixes",
            Flag,
            "false",
            "Keep what prompts have in common, where a request trace numbers their blocks",
        ),
        Key::optional(
            "keep",
            AboveZero(&TIME),
            "60 s",
            "How long a prefix stays that nobody reads, at the expense of blocks; left out, until a request needs the room",
        ),
    ],
};

/// The keys of `load`.
pub(crate) static LOAD: Table = Table {
    name: "load",
    about: "A cold start: the run begins by loading the weights, and requests wait for those that never move",
    open: false,
    keys: &[Key::required("from", Text, "nvme", "The tier that holds everything at the start")],
};

/// Reads `memory`; where the machine is unknown, only how the caps are written is checked.
pub(crate) fn caps(
    report: &mut Report,
    field: &Field<'_>,
    machine: Option<&Machine>,
) -> Option<BTreeMap<String, Cap>> {
    let fields = field.fields(report, "tier names, each with a cap: { hbm: 6 GiB } or { hbm: 192 slots }")?;
    let caps: Vec<_> =
        fields.entries.iter().map(|entry| cap(report, &fields.field(entry), &entry.key, machine)).collect();
    caps.into_iter().collect()
}

fn cap(
    report: &mut Report,
    field: &Field<'_>,
    name: &str,
    machine: Option<&Machine>,
) -> Option<(String, Cap)> {
    let tier = machine.map(|machine| tier_named(name, &machine.tiers).map(|id| machine.tier(id)));
    let tier = tier.and_then(|tier| tier.map_err(|wrong| field.key_error(report, wrong)).ok());
    let cap = field.read(report, |text| match slots(text) {
        Some(slots) => slots.map(Cap::Slots),
        None => size_above_zero(text).map(Cap::Size),
    })?;
    let capacity = tier?.capacity;
    if let Cap::Size(size) = cap
        && size > capacity
    {
        let message = format!("{size} is more than the {capacity} that {name} has");
        field.error(report, Wrong::new(message, "a cap makes a tier smaller"));
        return None;
    }
    Some((name.to_owned(), cap))
}

/// Reads `kv`, or computes room for a batch of requests of [`CONTEXT_GUESS`] tokens, or of their prompts if those are
/// longer.
pub(crate) fn kv_reserve(
    report: &mut Report,
    field: Option<Field<'_>>,
    model: Option<&Model>,
    load: Option<(u32, u32)>,
) -> Option<Kv> {
    if let Some(field) = field {
        if matches!(field.node.value, Value::Map(_)) {
            return paged(report, &field, model).map(Kv::Paged);
        }
        return field.read(report, size).map(Kv::Reserved);
    }
    let (model, (batch, prompt)) = (model?, load?);
    let context = prompt.max(CONTEXT_GUESS);
    let tokens = |window: Option<u32>| u64::from(window.unwrap_or(context).min(context));
    let of = |layer: &Layer| layer.kv_per_token.0 * tokens(layer.window) + layer.state.0;
    let request: u64 = model.layers.iter().map(of).sum();
    Some(Kv::Reserved(Bytes(request.saturating_mul(u64::from(batch)))))
}

fn paged(report: &mut Report, field: &Field<'_>, model: Option<&Model>) -> Option<Paged> {
    let (_, chosen) = field.choice(report, KVS)?;
    let keys = chosen.keys(report, &PAGED)?;
    let page = keys.or_default(report, "page", |text| match whole(text)? {
        page @ 1..=65_536 => Ok(page as u32),
        _ => Err(Wrong::new(format!("{text} tokens a page"), "1 to 65536, such as 16")),
    });
    let most = keys.required(report, "most", size_above_zero);
    let prefixes = keys.or_default(report, "prefixes", flag);
    let keep = keys.optional(report, "keep", time_above_zero);
    let paged = Paged { page: page?, most: most?, prefixes: prefixes?, keep: keep? };
    if paged.keep.is_some() && !paged.prefixes {
        let hint = "write `prefixes: true` too, or leave `keep` out";
        chosen.key_error(report, Wrong::new("`keep` without prefixes", hint));
        return None;
    }
    // What one page takes in all layers.
    let token = |model: &Model| model.layers.iter().map(|layer| layer.kv_per_token.0).sum::<u64>();
    let least = Bytes(model.map_or(0, token).saturating_mul(paged.page.into()));
    if least > paged.most {
        let message = format!("{} cannot hold one page of {least}", paged.most);
        chosen.key_error(report, Wrong::new(message, "a larger `most`, or a smaller `page`"));
        return None;
    }
    Some(paged)
}

/// Where native copies live, which further formats are kept beside them, and into which blocks may be coded on their way.
pub(crate) struct Home {
    pub(crate) tiers: Homes,
    pub(crate) encoded: Vec<FormatId>,
    pub(crate) recode: Vec<FormatId>,
}

/// What `home` and `encoded` are checked against.
pub(crate) struct Ground<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) model: &'a Model,
    pub(crate) caps: &'a BTreeMap<String, Cap>,
    pub(crate) pools: &'a [PoolSpec],
    pub(crate) sensitivity: Option<&'a Sensitivity>,
}

/// Reads `home`, `encoded`, `recode` and `load` where there is nothing to check them against: only how they are written.
pub(crate) fn unplaced(report: &mut Report, keys: &Keys<'_>) {
    for field in ["encoded", "recode"].into_iter().filter_map(|key| keys.get(key)) {
        for item in field.items() {
            item.read(report, format);
        }
    }
    for item in keys.get("home").iter().flat_map(Field::items) {
        item.text(report);
    }
    if let Some(keys) = keys.get("load").and_then(|field| field.keys(report, &LOAD)) {
        keys.need(report, "from").and_then(|field| field.text(report));
    }
}

/// Reads `home`, `encoded` and `recode`.
pub(crate) fn home(
    report: &mut Report,
    keys: &Keys<'_>,
    at: &Field<'_>,
    ground: &Ground<'_>,
) -> Option<Home> {
    let encoded_field = keys.get("encoded");
    let home_field = keys.get("home");
    let recipes = ground.model.blocks.iter().any(|block| block.recipe.is_some());
    let asked = encoded_field.as_ref().filter(|field| !field.items().is_empty());
    if let Some(field) = asked.filter(|_| recipes) {
        let hint = "write `recode`: formats that blocks are coded into once they are made";
        field.key_error(report, Wrong::new("blocks with a `recipe` have no home copies to encode", hint));
        return None;
    }
    let encoded = match &encoded_field {
        Some(field) => formats(report, field, &[], ground)?,
        None => vec![],
    };
    let recode = match keys.get("recode") {
        Some(field) => formats(report, &field, &encoded, ground)?,
        None => vec![],
    };
    let blame = encoded_field.as_ref().or(home_field.as_ref()).unwrap_or(at);
    let tiers = match &home_field {
        Some(field) => home_tiers(report, field, ground)?,
        None => vec![default_home(report, blame, &encoded, ground)?],
    };
    let copies = ground.machine.tiers.len() * (1 + encoded.len() + recode.len());
    if copies > MAX_FORMS {
        let message = format!("{copies} kinds of copy: tiers times formats");
        blame.key_error(report, Wrong::new(message, format!("at most {MAX_FORMS}: fewer tiers, or formats")));
        return None;
    }
    let room: Vec<Bytes> =
        (0..ground.machine.tiers.len() as u8).map(|id| ground.capacity(TierId(id))).collect();
    let Some(tiers) = Homes::spread(&tiers, ground.model, ground.machine, &encoded, &room) else {
        let needs = ground.needs(tiers[0], &encoded);
        let missing = needs.saturating_sub(tiers.iter().map(|tier| room[tier.index()]).sum());
        let names: Vec<&str> = tiers.iter().map(|&tier| ground.machine.tier(tier).name.as_str()).collect();
        let have = if names.len() > 1 { "have" } else { "has" };
        let message =
            format!("the home copies take {needs}: {missing} more than {} {have}", names.join(" and "));
        let hint =
            "fewer formats in `encoded`, another `home` or several as in [dram, nvme], or a larger tier";
        blame.key_error(report, Wrong::new(message, hint));
        return None;
    };
    Some(Home { tiers, encoded, recode })
}

/// Reads the tiers of `home`, in the order in which they are filled.
fn home_tiers(report: &mut Report, field: &Field<'_>, ground: &Ground<'_>) -> Option<Vec<TierId>> {
    let mut tiers = Vec::new();
    for item in field.items() {
        let tier = item.read(report, |text| tier_named(text, &ground.machine.tiers))?;
        let wrong = match ground.machine.tier(tier).class {
            Class::Fast => {
                Wrong::new("the fast tier is no home", "a staged or cold tier: blocks are loaded from it")
            }
            _ if ground.machine.tier(tier).transient => Wrong::new(
                "its owner may take it back",
                "name it in `staging`, where copies may go at any time, and a `home` that stays",
            ),
            _ if tiers.contains(&tier) => {
                Wrong::new("listed twice", "each tier once, the first to be filled first")
            }
            _ => {
                tiers.push(tier);
                continue;
            }
        };
        item.error(report, wrong);
        return None;
    }
    if tiers.is_empty() {
        field.error(report, Wrong::new("no tier", "one at least, such as `dram`"));
        return None;
    }
    Some(tiers)
}

/// Reads `load`: the tier that everything comes from.
pub(crate) fn load(
    report: &mut Report,
    field: &Field<'_>,
    home: &Home,
    ground: &Ground<'_>,
) -> Option<TierId> {
    let keys = field.keys(report, &LOAD)?;
    let from = keys.need(report, "from")?;
    let tier = from.read(report, |text| tier_named(text, &ground.machine.tiers))?;
    let described = ground.machine.tier(tier);
    if described.class == Class::Fast {
        from.error(report, Wrong::new("the fast tier is what is loaded", "a staged or cold tier"));
        return None;
    }
    let needs = ground.needs(tier, &home.encoded) + ground.model.resident_bytes();
    let missing = needs.saturating_sub(ground.capacity(tier));
    if missing > Bytes::ZERO {
        let message = format!(
            "the weights and the home copies take {needs}: {missing} more than {} has",
            described.name
        );
        from.error(report, Wrong::new(message, "a larger tier, or fewer formats in `encoded`"));
        return None;
    }
    Some(tier)
}

fn default_home(
    report: &mut Report,
    at: &Field<'_>,
    encoded: &[FormatId],
    ground: &Ground<'_>,
) -> Option<TierId> {
    let machine = ground.machine;
    let stays = |tier: &TierId| !machine.tier(*tier).transient;
    let below = || machine.tiers_of(Class::Staged).chain(machine.tiers_of(Class::Cold)).filter(stays);
    let found = below().find(|&tier| ground.needs(tier, encoded) <= ground.capacity(tier));
    if found.is_none() {
        let largest = below().max_by_key(|&tier| ground.capacity(tier))?;
        let needs = ground.needs(largest, encoded);
        let missing = needs.saturating_sub(ground.capacity(largest));
        let name = &machine.tier(largest).name;
        let message = format!(
            "no tier below the fast one holds the home copies: they take {needs}, {missing} more than {name} has"
        );
        at.key_error(
            report,
            Wrong::new(
                message,
                "several tiers as in `home: [dram, nvme]`, fewer formats in `encoded`, a larger tier, or a smaller model",
            ),
        );
    }
    found
}

/// Reads a list of formats that are of use, none of them among those `taken`.
fn formats(
    report: &mut Report,
    field: &Field<'_>,
    taken: &[FormatId],
    ground: &Ground<'_>,
) -> Option<Vec<FormatId>> {
    let mut formats = Vec::new();
    let mut whole = true;
    for item in field.items() {
        match item.read(report, format) {
            Some(id) if taken.contains(&id) => {
                item.error(report, Wrong::new("it is in `encoded`", "a format is kept, or made on the way"));
                whole = false;
            }
            Some(id) if formats.contains(&id) => {
                item.error(report, Wrong::new("listed twice", "each format once"));
                whole = false;
            }
            Some(id) => match useless(id, ground) {
                Some(wrong) => {
                    item.error(report, wrong);
                    whole = false;
                }
                None => formats.push(id),
            },
            None => whole = false,
        }
    }
    whole.then_some(formats)
}

/// Why keeping a model's blocks in a format makes no sense, if it does not.
fn useless(id: FormatId, ground: &Ground<'_>) -> Option<Wrong> {
    let block = ground.model.blocks.first()?;
    let (name, native) = (id.name(), block.native.name());
    if id == block.native {
        return Some(Wrong::new(
            format!("{name} is the native format"),
            "home copies are in it anyway: leave it out",
        ));
    }
    if let Some(base) = id.get().lossless_of.filter(|&base| base != native) {
        return Some(Wrong::new(format!("{name} codes {base}, the blocks are {native}"), "leave it out"));
    }
    if block.bytes(id) >= block.bytes(block.native) {
        return Some(Wrong::new(format!("{name} is no smaller than the native {native}"), "leave it out"));
    }
    if !id.get().direct && ground.machine.codecs.iter().all(|codec| codec.format != id) {
        let hint =
            format!("give the machine `codecs: {{ {name}: {{ encode: 250 GB/s, decode: 200 GB/s }} }}`");
        return Some(Wrong::new(format!("{} cannot expand {name}", ground.machine.name), hint));
    }
    let known = ground.sensitivity.is_none_or(|table| table.formats.contains_key(&id));
    (!known && !id.keeps(block.native)).then(|| {
        let hint = "add the format to the sensitivity table, or leave it out";
        Wrong::new(format!("the error of {name} is unknown, so no drift budget can hold"), hint)
    })
}

impl Ground<'_> {
    /// What a tier has for blocks: checkpoints take their room first.
    fn capacity(&self, tier: TierId) -> Bytes {
        let pools = self.pools.iter().filter(|pool| pool.tier == tier);
        self.whole(tier).saturating_sub(pools.map(|pool| pool.room).sum())
    }

    fn whole(&self, tier: TierId) -> Bytes {
        let described = self.machine.tier(tier);
        match self.caps.get(&described.name) {
            None => described.capacity,
            Some(Cap::Size(size)) => *size,
            Some(Cap::Slots(slots)) => {
                slots_size(*slots, self.model.largest_block().round_up(described.granularity))
            }
        }
    }

    fn needs(&self, tier: TierId, encoded: &[FormatId]) -> Bytes {
        let granularity = self.machine.tier(tier).granularity;
        let copies = |block: &policy::model::Block| -> Bytes {
            block.home_formats(encoded).map(|format| block.bytes(format).round_up(granularity)).sum()
        };
        self.model.blocks.iter().map(copies).sum()
    }
}

/// Checks that every cap fits its tier, and that the fast tier holds what is resident and at least one block: waves
/// run a layer step a block at a time at worst.
pub(crate) fn check_caps(report: &mut Report, memory: &Field<'_>, scenario: &Scenario) {
    let blame = |name: &str| {
        let entry = memory
            .node
            .entries()
            .iter()
            .find(|entry| entry.key == name && scenario.memory.contains_key(name));
        entry.map_or(memory.key_at, |entry| entry.value.at)
    };
    let fast = scenario.fast();
    for (index, tier) in scenario.machine.tiers.iter().enumerate() {
        let id = TierId(index as u8);
        let (capacity, path) = (scenario.capacity(id), format!("memory.{}", tier.name));
        if capacity > tier.capacity {
            let floor = if id == fast { scenario.resident_floor() } else { Bytes::ZERO };
            let room = tier.capacity.saturating_sub(floor).0 / scenario.slot(id).0.max(1);
            let message = format!("{capacity} with what is resident: {} has {}", tier.name, tier.capacity);
            report.error(blame(&tier.name), &path, Wrong::new(message, format!("at most {room} slots")));
        }
    }
    let name = &scenario.machine.tier(fast).name;
    let (capacity, floor, slot) = (scenario.capacity(fast), scenario.resident_floor(), scenario.slot(fast));
    let paged = match scenario.kv {
        Kv::Paged(paged) => paged.most,
        Kv::Reserved(_) => Bytes::ZERO,
    };
    let least = floor + slot + paged;
    check_pressure(report, memory, scenario, capacity.saturating_sub(least));
    let missing = least.saturating_sub(capacity);
    if missing > Bytes::ZERO {
        let lost = scenario.resident.activations + scenario.fragmented();
        let lost = if lost > Bytes::ZERO { format!(" and {lost} of `resident`") } else { String::new() };
        let block = if slot > Bytes::ZERO { format!("one block of {slot} beside ") } else { String::new() };
        let message = format!(
            "{capacity} cannot hold {block}{} of resident weights and {} of key-value cache{lost}: {missing} missing",
            scenario.model.resident_bytes(),
            scenario.kv_reserve() + paged
        );
        let hint = "more fast memory, a smaller `kv`, or a smaller batch";
        report.error(blame(name), &format!("memory.{name}"), Wrong::new(message, hint));
    }
}

/// Others may take no more than what a block and the caches leave.
fn check_pressure(report: &mut Report, at: &Field<'_>, scenario: &Scenario, spare: Bytes) {
    let entry = at.node.entries().iter().find(|entry| entry.key == "pressure");
    let blame = entry.map_or(at.key_at, |entry| entry.value.at);
    let kept = |pressure: &Pressure| match pressure.taken {
        Taken::Tier(tier) => scenario.checkpoint_room(tier) > Bytes::ZERO,
        _ => false,
    };
    if scenario.pressure.iter().any(kept) {
        let hint = "keep checkpoints in a memory that stays: a failure takes copies of blocks only";
        report.error(blame, "pressure", Wrong::new("a memory that holds checkpoints fails", hint));
    }
    let taken = scenario.pressure.iter().map(|pressure| match pressure.taken {
        Taken::Memory(tier, bytes) if tier == scenario.fast() => bytes,
        _ => Bytes::ZERO,
    });
    let most = taken.max().unwrap_or_default();
    if most > spare {
        let message = format!(
            "others take {most}, and {spare} can be spared beside one block, caches and what is resident"
        );
        report.error(blame, "pressure", Wrong::new(message, "less of it, or more fast memory"));
    }
}
