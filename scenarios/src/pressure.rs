//! The key `pressure`: what others take of memories and links during a run, what fails, and what comes back.

use crate::diagnostics::{Report, Wrong, one_of};
use crate::keys::Type::{Either, Map, Quantity, Text, Whole};
use crate::keys::{Choice, Key, Table, Type};
use crate::machine::tier_named;
use crate::parallel::MOST_RANKS;
use crate::reader::Field;
use crate::scenario::Parallel;
use crate::tree::{Node, Value};
use crate::units::{RATE, SIZE, TIME, any_rate, size, time, whole};
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
    /// Of the accelerators that have experts of their own these are lost, in order, and no others.
    Accelerators(Vec<u32>),
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
    Choice {
        name: "accelerators",
        about: "These of `parallel.expert` accelerators have failed, with all that was in their memories; one that is no longer named is back, empty",
        takes: Type::List(&Whole(0, MOST_RANKS)),
    },
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

/// What can be taken of: a machine, its tiers of staged copies, and the accelerators that work together.
#[derive(Clone, Copy)]
pub(crate) struct Takeable<'a> {
    pub(crate) machine: Option<&'a Machine>,
    pub(crate) staging: &'a [TierId],
    pub(crate) parallel: Parallel,
    /// Whether prompts are computed.
    pub(crate) prefill: bool,
}

/// Whether any entry of `pressure` names accelerators.
pub(crate) fn loses_accelerators(field: Field<'_>) -> bool {
    let named = |node: &Node, name: &str| {
        node.entries().iter().find(|entry| entry.key == name).map(|entry| entry.value.clone())
    };
    field
        .items()
        .iter()
        .any(|item| named(item.node, "take").is_some_and(|take| named(&take, "accelerators").is_some()))
}

/// Reads `pressure`: in order of time.
pub(crate) fn pressure(
    report: &mut Report,
    field: &Field<'_>,
    takeable: Takeable<'_>,
) -> Option<Vec<Pressure>> {
    let mut entries: Vec<Pressure> = Vec::new();
    let mut whole = true;
    for item in field.items() {
        let Some(entry) = read(report, &item, takeable) else {
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

fn read(report: &mut Report, item: &Field<'_>, takeable: Takeable<'_>) -> Option<Pressure> {
    let Takeable { machine, staging, .. } = takeable;
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
        ("accelerators", chosen) => accelerators(report, &chosen, takeable),
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

/// Accelerators of a run that goes on without them.
fn accelerators(report: &mut Report, field: &Field<'_>, takeable: Takeable<'_>) -> Option<Taken> {
    let Parallel { tensor, expert, pipeline, .. } = takeable.parallel;
    let wrong = if tensor > 1 || pipeline > 1 {
        Some((
            "a run does not go on without a part of every layer, or without a stage",
            "`parallel: { expert: 8 }` alone: those accelerators can be lost",
        ))
    } else if expert == 1 {
        Some((
            "nobody is left to serve without the only accelerator",
            "`parallel: { expert: 8 }`: of several, some can be lost",
        ))
    } else if !takeable.prefill {
        Some((
            "the caches of the lost are computed again, but prompts are not computed",
            "write `workload.prefill: { chunk: 512 }`",
        ))
    } else {
        None
    };
    if let Some((message, hint)) = wrong {
        field.error(report, Wrong::new(message, hint));
        return None;
    }
    let lost = field
        .items()
        .iter()
        .map(|item| item.read(report, |text| one_of_the_lost(text, expert)))
        .collect::<Vec<_>>();
    let mut lost = lost.into_iter().collect::<Option<Vec<u32>>>()?;
    lost.sort_unstable();
    lost.dedup();
    Some(Taken::Accelerators(lost))
}

fn one_of_the_lost(text: &str, expert: u32) -> Result<u32, Wrong> {
    match whole(text)? {
        0 => Err(Wrong::new(
            "the first accelerator is the one whose memory, links and decisions a run shows",
            format!("another one, from 1 to {}", expert - 1),
        )),
        rank if rank < u64::from(expert) => Ok(rank as u32),
        rank => {
            Err(Wrong::new(format!("no accelerator {rank} among {expert}"), format!("1 to {}", expert - 1)))
        }
    }
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
