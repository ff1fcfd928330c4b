//! A machine file becomes a [`policy::Machine`].

use crate::diagnostics::{Report, Wrong, one_of};
use crate::machine_keys::{
    ACCELERATOR, BACKINGS, CLASSES, CODEC, DUPLEX, LINK, MACHINE, MOST_DEVICES, MOST_NODES, MOST_STRIPES,
    PEAK, TIER,
};
use crate::peers::peers;
use crate::price::{self, Price};
use crate::processors::{Measured, near, of_memory, processor_of, read_host};
use crate::reader::{Field, Keys, flag, format, join, name_of, text};
use crate::times::read_times;
use crate::tree::{Entry, Value};
use crate::units::{at_most, count, flops, rate, size, size_above_zero, time, whole};
use policy::kernel::KernelRate;
use policy::machine::{Backing, Class, Codec, Link, Peak, Peers, Processor, Tier};
use policy::path::MAX_LINKS;
use policy::times::ModelTimes;
use policy::{Bandwidth, Bytes, LinkId, Machine, Nanos, Rate, TierId};

/// Tiers and link directions have 8-bit ids, and a set of link directions is one word.
const MOST: usize = MAX_LINKS / 2;

/// Reads a machine and its price; reports everything that is wrong with them.
pub(crate) fn priced_machine(report: &mut Report, field: &Field<'_>) -> Option<(Machine, Option<Price>)> {
    let price = field.keys(report, &MACHINE)?.get("price");
    let price = price.map_or(Some(None), |field| price::price(report, &field).map(Some));
    let machine = machine(report, field);
    Some((machine?, price?))
}

/// Reads a machine; reports everything that is wrong with it.
fn machine(report: &mut Report, field: &Field<'_>) -> Option<Machine> {
    let keys = field.keys(report, &MACHINE)?;
    let name = keys.required(report, "name", text);
    let tiers_field = keys.need(report, "tiers");
    let tiers = tiers_field.as_ref().and_then(|tiers| read_tiers(report, tiers));
    let links_field = keys.need(report, "links");
    let (tiers, own): (Option<Vec<Tier>>, Vec<_>) = match tiers {
        Some(tiers) => {
            let (tiers, own) = tiers.into_iter().unzip();
            (Some(tiers), own)
        }
        None => (None, vec![]),
    };
    let links = links_field.as_ref().and_then(|links| read_links(report, links, tiers.as_deref()));
    let accelerator_field = keys.need(report, "accelerator");
    let ground = tiers.as_deref().zip(links.as_deref());
    let accelerator = accelerator_field.as_ref().and_then(|field| read_accelerator(report, field, ground));
    let host_field = keys.get("host");
    let codecs = keys.get("codecs").map_or(Some(vec![]), |codecs| read_codecs(report, &codecs));
    let merge = keys.get("merge").map_or(Some(None), |field| field.read(report, flops).map(Some));
    let host = host_field.as_ref().map_or(Some((vec![], None)), |host| read_host(report, host));
    let (host_codecs, host) = host?;
    let Accelerator { processor, kernels, peak, peers, times } = accelerator?;
    let tiers = tiers?;
    let machine = Machine {
        name: name?,
        near: near(&tiers, host, own),
        tiers,
        links: links?,
        accelerator: processor,
        merge: merge?,
        codecs: codecs?,
        host_codecs,
        kernels,
        peak,
        peers,
        times,
    };
    let (tiers, links) = (tiers_field?, links_field?);
    check_classes(report, &tiers, &machine)?;
    check_reach(report, &links, &machine)?;
    check_kernels(report, &accelerator_field?, &machine)?;
    Some(machine)
}

/// Reads `tiers`, each with its own processor, if it has one.
fn read_tiers(report: &mut Report, field: &Field<'_>) -> Option<Vec<(Tier, Option<Measured>)>> {
    let fields = field
        .fields(report, "tier names, each with class, backing, capacity, granularity, read and write")?;
    too_many(report, field, fields.entries.len())?;
    let tiers: Vec<_> =
        fields.entries.iter().map(|entry| read_tier(report, &fields.field(entry), &entry.key)).collect();
    tiers.into_iter().collect()
}

fn read_tier(report: &mut Report, field: &Field<'_>, name: &str) -> Option<(Tier, Option<Measured>)> {
    let keys = field.keys(report, &TIER)?;
    let class = keys.required(report, "class", name_of("class of tier", CLASSES));
    let backing = keys.required(report, "backing", name_of("backing", BACKINGS));
    let node = keys.get("node");
    let node = node.map_or(Some(None), |node| {
        read_number(report, &node, MOST_NODES, "as Linux numbers nodes").map(Some)
    });
    let device = keys.get("device");
    let device = device.map_or(Some(None), |device| read_device(report, &device, class, backing).map(Some));
    let transient = keys.or_default(report, "transient", flag);
    let capacity = keys.required(report, "capacity", size_above_zero);
    let granularity = keys.or_default(report, "granularity", size_above_zero);
    let read = keys.required(report, "read", rate);
    let write = keys.required(report, "write", rate);
    let stripes = keys.or_default(report, "stripes", at_most(MOST_STRIPES))?;
    let endurance = keys.optional(report, "endurance", size_above_zero);
    let own = keys.get("compute");
    let own =
        own.map_or(Some(None), |field| of_memory(report, &field, (name, class, read), stripes).map(Some));
    let times = |value: u64| value.saturating_mul(u64::from(stripes));
    let tier = Tier {
        name: name.to_owned(),
        capacity: Bytes(times(capacity?.0)),
        class: class?,
        backing: backing?,
        node: node?,
        device: device?,
        transient: transient?,
        granularity: granularity?,
        read: Bandwidth(times(read?.0)),
        write: Bandwidth(times(write?.0)),
        endurance: endurance?.map(|endurance| Bytes(times(endurance.0))),
    };
    Some((tier, own?))
}

fn read_number(report: &mut Report, field: &Field<'_>, most: u64, why: &str) -> Option<u32> {
    field.read(report, |text| match whole(text)? {
        number if number <= most => Ok(number as u32),
        _ => Err(Wrong::new(format!("{text} is too large"), format!("at most {most}, {why}"))),
    })
}

/// The accelerator that holds a tier, which must be memory of one, and not of the one that computes.
fn read_device(
    report: &mut Report,
    field: &Field<'_>,
    class: Option<Class>,
    backing: Option<Backing>,
) -> Option<u32> {
    let number = read_number(report, field, MOST_DEVICES, "more than a machine has")?;
    let wrong = if backing.is_some_and(|backing| backing != Backing::Device) {
        Wrong::new(
            "only memory of backing `device` is an accelerator's",
            "write `backing: device`, or leave it out",
        )
    } else if class == Some(Class::Fast) {
        let hint = "leave it out: `validate --device cuda:1` says which one computes";
        Wrong::new("the fast tier is the memory of the accelerator that computes", hint)
    } else {
        return Some(number);
    };
    field.key_error(report, wrong);
    None
}

/// Reads `links`; where the tiers are unknown, only how the links are written is checked.
fn read_links(report: &mut Report, field: &Field<'_>, tiers: Option<&[Tier]>) -> Option<Vec<Link>> {
    let fields = field.fields(report, "link names, each with between, forward, backward, latency, ...")?;
    too_many(report, field, fields.entries.len())?;
    let mut links: Vec<Link> = Vec::new();
    let mut whole = true;
    for entry in fields.entries {
        let link = fields.field(entry);
        match read_link(report, &link, &entry.key, tiers, links.len() as u8) {
            Some(pair) => {
                let rival = links.iter().find(|old| old.from == pair[0].from && old.to == pair[0].to);
                if let Some(rival) = rival {
                    let message = format!("`{}` joins the same two tiers", rival.name);
                    link.key_error(
                        report,
                        Wrong::new(message, "one link a pair: add up their rates and engines"),
                    );
                    whole = false;
                }
                links.extend(pair);
            }
            None => whole = false,
        }
    }
    whole.then_some(links)
}

/// What both directions of a link share.
struct Shared {
    latency: Nanos,
    submit: Nanos,
    engines: u32,
}

fn read_link(
    report: &mut Report,
    field: &Field<'_>,
    name: &str,
    tiers: Option<&[Tier]>,
    next: u8,
) -> Option<[Link; 2]> {
    let keys = field.keys(report, &LINK)?;
    let ends = keys.need(report, "between").and_then(|ends| read_ends(report, &ends, tiers));
    let (forward, backward) = read_rates(report, &keys);
    let latency = keys.required(report, "latency", time);
    let submit = keys.required(report, "submit", time);
    let engines = keys.required(report, "engines", count);
    let stripes = keys.or_default(report, "stripes", at_most(MOST_STRIPES))?;
    let duplex = keys
        .need(report, "duplex")
        .and_then(|duplex| read_duplex(report, &duplex, forward.as_ref(), backward.as_ref()));
    let shared = Shared { latency: latency?, submit: submit?, engines: engines? };
    let ((from, to), duplex) = (ends?, duplex?);
    let direction = |from, to, rate: Rate, duplex: Bandwidth, opposite| Link {
        name: name.to_owned(),
        from,
        to,
        latency: shared.latency,
        submit: shared.submit,
        rate: Rate::striped(&rate, stripes),
        duplex: Bandwidth(duplex.0.saturating_mul(u64::from(stripes))),
        engines: shared.engines.saturating_mul(stripes),
        opposite: Some(LinkId(opposite)),
    };
    Some([direction(from, to, forward?, duplex.0, next + 1), direction(to, from, backward?, duplex.1, next)])
}

/// Reads `forward`, `backward` and `half_size`. A rate is one number, or a map of measured ones by the size of the copy;
/// then it needs no half size.
fn read_rates(report: &mut Report, keys: &Keys<'_>) -> (Option<Rate>, Option<Rate>) {
    let half = keys.get("half_size");
    let half_size = keys.or_default(report, "half_size", size);
    let mut side = |key| {
        let side = keys.need(report, key)?;
        if matches!(side.node.value, Value::Map(_)) {
            if let Some(half) = &half {
                let wrong = Wrong::new(
                    format!("`{key}` is measured by size"),
                    "leave `half_size` out, or take it away with `half_size: ~`",
                );
                half.key_error(report, wrong);
            }
            return read_measured(report, &side);
        }
        Some(Rate::with_half_size(side.read(report, rate)?, half_size?))
    };
    (side("forward"), side("backward"))
}

fn read_measured(report: &mut Report, field: &Field<'_>) -> Option<Rate> {
    let fields = field
        .fields(report, "sizes of a copy, each with its rate: { 64 KiB: 4.8 GB/s, 16 MiB: 23.9 GB/s }")?;
    let mut points = Vec::new();
    for entry in fields.entries {
        let point = fields.field(entry);
        let at = size_above_zero(&entry.key).map_err(|wrong| point.key_error(report, wrong)).ok();
        points.push(at.zip(point.read(report, rate)));
    }
    let points = points.into_iter().collect::<Option<Vec<_>>>()?;
    let hint = "sizes in growing order, and no larger copy done before a smaller one";
    Rate::measured(&points).map_err(|error| field.error(report, Wrong::new(error.to_string(), hint))).ok()
}

fn read_ends(report: &mut Report, field: &Field<'_>, tiers: Option<&[Tier]>) -> Option<(TierId, TierId)> {
    let end = |text: &str| tiers.map(|tiers| tier_named(text, tiers)).transpose();
    let ends: Vec<_> = field.items().iter().map(|item| item.read(report, end)).collect();
    let ends: Vec<Option<TierId>> = ends.into_iter().collect::<Option<_>>()?;
    match ends[..] {
        [Some(from), Some(to)] if from != to => Some((from, to)),
        [None, None] => None,
        _ => {
            field.error(report, Wrong::new("a link has two different ends", "write `between: [dram, hbm]`"));
            None
        }
    }
}

/// Reads the name of one of `tiers`.
pub(crate) fn tier_named(written: &str, tiers: &[Tier]) -> Result<TierId, Wrong> {
    let position = tiers.iter().position(|tier| tier.name == written);
    position.map(|index| TierId(index as u8)).ok_or_else(|| {
        let hint = one_of(written, tiers.iter().map(|tier| tier.name.as_str()));
        Wrong::new(format!("the machine has no tier `{written}`"), hint)
    })
}

fn read_duplex(
    report: &mut Report,
    field: &Field<'_>,
    forward: Option<&Rate>,
    backward: Option<&Rate>,
) -> Option<(Bandwidth, Bandwidth)> {
    let keys = field.keys(report, &DUPLEX)?;
    let mut side = |key, alone: Option<&Rate>| {
        let side = keys.need(report, key)?;
        let shared = side.read(report, rate)?;
        if let Some(alone) = alone.map(Rate::peak).filter(|&alone| alone < shared) {
            side.error(report, Wrong::new(format!("faster than the {alone} it has alone"), "at most that"));
            return None;
        }
        Some(shared)
    };
    let (forward, backward) = (side("forward", forward), side("backward", backward));
    Some((forward?, backward?))
}

/// What a machine file says of its accelerator.
struct Accelerator {
    processor: Processor,
    kernels: Vec<KernelRate>,
    peak: Option<Peak>,
    peers: Option<Peers>,
    times: Vec<ModelTimes>,
}

fn read_accelerator(
    report: &mut Report,
    field: &Field<'_>,
    ground: Option<(&[Tier], &[Link])>,
) -> Option<Accelerator> {
    let keys = field.keys(report, &ACCELERATOR)?;
    let processor = processor_of(report, &keys);
    let peak = keys.get("peak").map_or(Some(None), |field| read_peak(report, &field).map(Some));
    let peers = keys.get("peers").map_or(Some(None), |field| peers(report, &field, ground).map(Some));
    let times = keys.get("times").map_or(Some(vec![]), |field| read_times(report, &field));
    let (processor, kernels) = processor?;
    Some(Accelerator { processor, kernels, peak: peak?, peers: peers?, times: times? })
}

fn read_peak(report: &mut Report, field: &Field<'_>) -> Option<Peak> {
    let keys = field.keys(report, &PEAK)?;
    let flops = keys.required(report, "flops", flops);
    let read = keys.required(report, "read", rate);
    Some(Peak { flops: flops?, read: read? })
}

pub(crate) fn read_codecs(report: &mut Report, field: &Field<'_>) -> Option<Vec<Codec>> {
    let fields = field.fields(report, "format names, each with encode and decode")?;
    let read = |entry: &Entry| {
        let field = fields.field(entry);
        let id = format(&entry.key).map_err(|wrong| field.key_error(report, wrong)).ok();
        let keys = field.keys(report, &CODEC)?;
        let encode = keys.required(report, "encode", rate);
        let decode = keys.required(report, "decode", rate);
        Some(Codec { format: id?, encode: encode?, decode: decode? })
    };
    let codecs: Vec<_> = fields.entries.iter().map(read).collect();
    codecs.into_iter().collect()
}

fn too_many(report: &mut Report, field: &Field<'_>, count: usize) -> Option<()> {
    if count > MOST {
        field.key_error(report, Wrong::new(format!("{count} of them"), format!("at most {MOST}")));
        return None;
    }
    Some(())
}

fn check_classes(report: &mut Report, tiers: &Field<'_>, machine: &Machine) -> Option<()> {
    let fast: Vec<&str> = machine.tiers_of(Class::Fast).map(|id| machine.tier(id).name.as_str()).collect();
    match fast[..] {
        [_] if machine.tiers.len() > 1 => return Some(()),
        [_] => tiers
            .key_error(report, Wrong::new("only a fast tier", "add a staged or a cold tier to load from")),
        [] => {
            tiers.key_error(report, Wrong::new("no fast tier", "give the accelerator's memory `class: fast`"))
        }
        _ => {
            let message = format!("{} fast tiers: {}", fast.len(), fast.join(", "));
            tiers.key_error(report, Wrong::new(message, "exactly one tier has `class: fast`"));
        }
    }
    None
}

fn check_reach(report: &mut Report, links: &Field<'_>, machine: &Machine) -> Option<()> {
    let fast = machine.tiers_of(Class::Fast).next()?;
    let mut reached = vec![fast];
    let mut next = 0;
    while let Some(&to) = reached.get(next) {
        for link in machine.links.iter().filter(|link| link.to == to) {
            if !reached.contains(&link.from) {
                reached.push(link.from);
            }
        }
        next += 1;
    }
    let lost: Vec<&str> = (0..machine.tiers.len() as u8)
        .map(TierId)
        .filter(|id| !reached.contains(id))
        .map(|id| machine.tier(id).name.as_str())
        .collect();
    if lost.is_empty() {
        return Some(());
    }
    let message = format!("nothing links {} to {}", lost.join(", "), machine.tier(fast).name);
    links.key_error(report, Wrong::new(message, "add a link, or remove the tier"));
    None
}

/// Kernels and copies share the fast tier's bandwidth, so kernels cannot read faster than it is read.
fn check_kernels(report: &mut Report, accelerator: &Field<'_>, machine: &Machine) -> Option<()> {
    let (fast, kernels) = (machine.tier(machine.tiers_of(Class::Fast).next()?), machine.accelerator.read);
    if fast.read >= kernels {
        return Some(());
    }
    let message = format!("kernels read {kernels}, more than the {} that {} gives", fast.read, fast.name);
    let hint = format!("at most `tiers.{}.read`: kernels and copies share it", fast.name);
    let entry = accelerator.node.entries().iter().find(|entry| entry.key == "read")?;
    report.error(entry.value.at, &join(&accelerator.path, "read"), Wrong::new(message, hint));
    None
}
