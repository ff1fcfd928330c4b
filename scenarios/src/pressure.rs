//! The key `pressure`: what others take of memories and links during a run, and give back.

use crate::diagnostics::{Report, Wrong, one_of};
use crate::keys::Type::{Either, Map, Quantity, Text};
use crate::keys::{Choice, Key, Table, Type};
use crate::machine::tier_named;
use crate::reader::Field;
use crate::tree::Value;
use crate::units::{RATE, SIZE, TIME, any_rate, size, time};
use policy::machine::Class;
use policy::{Bandwidth, Bytes, LinkId, Machine, Nanos, TierId};

/// From an instant on, others take something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// When, from the beginning of the run.
    pub at: Nanos,
    /// What they take from then on, in all.
    pub taken: Taken,
}

/// What others take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So much of the fast tier, or of one that holds staged copies.
    Memory(TierId, Bytes),
    /// A tier of staged copies fails, with all that is in it. Until memory is given back it has none.
    Tier(TierId),
    /// So much of a link's rate, in both directions.
    Link([LinkId; 2], Bandwidth),
}

/// The keys of one entry.
pub(crate) static PRESSURE: Table = Table {
    name: "pressure",
    about: "From an instant on, others take so much of a memory (another job, a burst of activations, its owner) or of a link, or a memory fails",
    open: false,
    keys: &[
        Key::required(
            "at",
            Quantity(&TIME),
            "10 s",
            "When, from the beginning of the run; later than the entry before",
        ),
        Key::required(
            "take",
            Either(&Quantity(&SIZE), &Type::Choice(TAKEN)),
            "4 GiB",
            "What they take from then on, in all: so much of fast memory, or of something else; `0 B` gives all of it back",
        ),
    ],
};

const TAKEN: &[Choice] = &[
    Choice {
        name: "memory",
        about: "So much of a memory of `staging`; `0 B` also brings back one that has failed, empty",
        takes: Map(&MEMORY),
    },
    Choice { name: "link", about: "So much of a link's rate, in each direction", takes: Map(&LINK) },
    Choice { name: "failure", about: "A memory of `staging` fails, with all that is in it", takes: Text },
];

static MEMORY: Table = Table {
    name: "taken_memory",
    about: "So much of a memory of `staging`",
    open: false,
    keys: &[
        Key::required("tier", Text, "peer", "Which one"),
        Key::required("size", Quantity(&SIZE), "30 GiB", "What others take of it, in all"),
    ],
};

static LINK: Table = Table {
    name: "taken_link",
    about: "So much of a link's rate, in each direction",
    open: false,
    keys: &[
        Key::required("name", Text, "pcie", "Which one"),
        Key::required(
            "rate",
            Quantity(&RATE),
            "10 GB/s",
            "What others take of it from then on, less than it carries each way while both are busy; `0 B/s` gives it back",
        ),
    ],
};

/// Reads `pressure`: in order of time.
pub(crate) fn pressure(
    report: &mut Report,
    field: &Field<'_>,
    machine: Option<&Machine>,
    staging: &[TierId],
) -> Option<Vec<Pressure>> {
    let mut entries: Vec<Pressure> = Vec::new();
    let mut whole = true;
    for item in field.items() {
        let Some(entry) = read(report, &item, machine, staging) else {
            whole = false;
            continue;
        };
        if entries.last().is_some_and(|before| before.at >= entry.at) {
            item.error(report, Wrong::new("no later than the entry before", "entries in order of time"));
            whole = false;
        }
        entries.push(entry);
    }
    whole.then_some(entries)
}

fn read(
    report: &mut Report,
    item: &Field<'_>,
    machine: Option<&Machine>,
    staging: &[TierId],
) -> Option<Pressure> {
    let keys = item.keys(report, &PRESSURE)?;
    let at = keys.required(report, "at", time);
    let take = keys.need(report, "take")?;
    if matches!(take.node.value, Value::Scalar(_)) {
        let bytes = take.read(report, size);
        let fast = machine?.tiers_of(Class::Fast).next()?;
        return Some(Pressure { at: at?, taken: Taken::Memory(fast, bytes?) });
    }
    let taken = match take.choice(report, TAKEN)? {
        ("memory", chosen) => memory(report, &chosen, machine, staging),
        ("link", chosen) => link(report, &chosen, machine),
        (_, chosen) => staged(report, &chosen, machine?, staging).map(Taken::Tier),
    };
    Some(Pressure { at: at?, taken: taken? })
}

fn memory(
    report: &mut Report,
    field: &Field<'_>,
    machine: Option<&Machine>,
    staging: &[TierId],
) -> Option<Taken> {
    let keys = field.keys(report, &MEMORY)?;
    let bytes = keys.required(report, "size", size);
    let named = keys.need(report, "tier")?;
    let tier = staged(report, &named, machine?, staging);
    Some(Taken::Memory(tier?, bytes?))
}

/// A tier that holds staged copies, and no others.
fn staged(report: &mut Report, field: &Field<'_>, machine: &Machine, staging: &[TierId]) -> Option<TierId> {
    let tier = field.read(report, |text| tier_named(text, &machine.tiers))?;
    if staging.contains(&tier) {
        return Some(tier);
    }
    let name = &machine.tier(tier).name;
    let hint =
        format!("home copies are never given up: name it in `staging: [{name}]`, with a `home` elsewhere");
    field.error(report, Wrong::new(format!("`{name}` holds no staged copies"), hint));
    None
}

fn link(report: &mut Report, field: &Field<'_>, machine: Option<&Machine>) -> Option<Taken> {
    let keys = field.keys(report, &LINK)?;
    let taken = keys.required(report, "rate", any_rate);
    let field = keys.need(report, "name")?;
    let (machine, name) = (machine?, field.text(report)?);
    let links = (0u8..).map(LinkId).zip(&machine.links);
    let [(forward, one), (backward, other)] =
        links.filter(|(_, link)| link.name == name).collect::<Vec<_>>()[..]
    else {
        let hint = one_of(name, machine.links.iter().step_by(2).map(|link| link.name.as_str()));
        field.error(report, Wrong::new(format!("the machine has no link `{name}`"), hint));
        return None;
    };
    let (least, taken) = (one.duplex.min(other.duplex), taken?);
    if taken >= least {
        let hint = format!("less than {least}, what it carries each way while both are busy");
        keys.need(report, "rate")?.error(report, Wrong::new("nothing would be left", hint));
        return None;
    }
    Some(Taken::Link([forward, backward], taken))
}
