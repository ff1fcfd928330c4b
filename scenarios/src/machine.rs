//! A machine file becomes a [`policy::Machine`].

use crate::diagnostics::{Report, Wrong, one_of};
use crate::reader::{Field, Fields, format, name_of};
use crate::tree::Value;
use crate::units::{count, flops, rate, size, size_above_zero, time};
use policy::machine::{Accelerator, Backing, Class, Codec, Link, Tier};
use policy::path::MAX_LINKS;
use policy::{Bandwidth, Bytes, LinkId, Machine, Nanos, Rate, TierId};

const CLASSES: &[(&str, Class)] = &[("fast", Class::Fast), ("staged", Class::Staged), ("cold", Class::Cold)];
const BACKINGS: &[(&str, Backing)] = &[
    ("device", Backing::Device),
    ("pinned", Backing::Pinned),
    ("pageable", Backing::Pageable),
    ("numa", Backing::Numa),
    ("file", Backing::File),
];
/// Tiers and link directions have 8-bit ids, and a set of link directions is one word.
const MOST: usize = MAX_LINKS / 2;

/// Reads a machine; reports everything that is wrong with it.
pub(crate) fn machine(report: &mut Report, field: &Field<'_>) -> Option<Machine> {
    let mut fields =
        field.fields(report, "a catalogue name, a path, or `name`, `tiers`, `links`, `accelerator`")?;
    let name = fields.required(report, "name", "my-machine", |text| Ok(text.to_owned()));
    let tiers_field =
        fields.need(report, "tiers", "{ hbm: { class: fast, ... }, dram: { class: staged, ... } }");
    let tiers = tiers_field.as_ref().and_then(|tiers| read_tiers(report, tiers));
    let links_field =
        fields.need(report, "links", "{ pcie: { between: [dram, hbm], forward: 56.5 GB/s, ... } }");
    let links = match (&links_field, &tiers) {
        (Some(links), Some(tiers)) => read_links(report, links, tiers),
        _ => None,
    };
    let accelerator = fields
        .need(report, "accelerator", "{ flops: 400 TFLOP/s, read: 2800 GB/s, launch: 3 us }")
        .and_then(|accelerator| read_accelerator(report, &accelerator));
    let codecs = fields.get("codecs").map_or(Some(vec![]), |codecs| read_codecs(report, &codecs));
    let host_codecs = fields.get("host").map_or(Some(vec![]), |host| read_host(report, &host));
    fields.finish(report);
    let machine = Machine {
        name: name?,
        tiers: tiers?,
        links: links?,
        accelerator: accelerator?,
        codecs: codecs?,
        host_codecs: host_codecs?,
    };
    let (tiers, links) = (tiers_field?, links_field?);
    check_classes(report, &tiers, &machine)?;
    check_reach(report, &links, &machine)?;
    Some(machine)
}

fn read_tiers(report: &mut Report, field: &Field<'_>) -> Option<Vec<Tier>> {
    let fields = field
        .fields(report, "tier names, each with class, backing, capacity, granularity, read and write")?;
    too_many(report, field, fields.entries.len())?;
    let tiers: Vec<_> =
        fields.entries.iter().map(|entry| read_tier(report, &fields.field(entry), &entry.key)).collect();
    tiers.into_iter().collect()
}

fn read_tier(report: &mut Report, field: &Field<'_>, name: &str) -> Option<Tier> {
    let mut fields = field.fields(report, "class, backing, capacity, granularity, read and write")?;
    let class = fields.required(report, "class", "fast", name_of("class of tier", CLASSES));
    let backing = fields.required(report, "backing", "device", name_of("backing", BACKINGS));
    let capacity = fields.required(report, "capacity", "80 GiB", size_above_zero);
    let granularity = fields.optional(report, "granularity", Bytes(1), size_above_zero);
    let read = fields.required(report, "read", "2500 GB/s", rate);
    let write = fields.required(report, "write", "2500 GB/s", rate);
    fields.finish(report);
    Some(Tier {
        name: name.to_owned(),
        capacity: capacity?,
        class: class?,
        backing: backing?,
        granularity: granularity?,
        read: read?,
        write: write?,
    })
}

fn read_links(report: &mut Report, field: &Field<'_>, tiers: &[Tier]) -> Option<Vec<Link>> {
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
    tiers: &[Tier],
    next: u8,
) -> Option<[Link; 2]> {
    let mut fields =
        field.fields(report, "between, forward, backward, latency, submit, half_size, engines, duplex")?;
    let ends = fields.need(report, "between", "[dram, hbm]").and_then(|ends| read_ends(report, &ends, tiers));
    let (forward, backward) = read_rates(report, &mut fields);
    let latency = fields.required(report, "latency", "1.4 us", time);
    let submit = fields.required(report, "submit", "1.4 us", time);
    let engines = fields.required(report, "engines", "1", count);
    let duplex = fields
        .need(report, "duplex", "{ forward: 25 GB/s, backward: 55 GB/s }")
        .and_then(|duplex| read_duplex(report, &duplex, forward.as_ref(), backward.as_ref()));
    fields.finish(report);
    let shared = Shared { latency: latency?, submit: submit?, engines: engines? };
    let ((from, to), duplex) = (ends?, duplex?);
    let direction = |from, to, rate, duplex, opposite| Link {
        name: name.to_owned(),
        from,
        to,
        latency: shared.latency,
        submit: shared.submit,
        rate,
        duplex,
        engines: shared.engines,
        opposite: Some(LinkId(opposite)),
    };
    Some([direction(from, to, forward?, duplex.0, next + 1), direction(to, from, backward?, duplex.1, next)])
}

/// Reads `forward`, `backward` and `half_size`. A rate is one number, or a map of measured ones by the size of the copy;
/// then it needs no half size.
fn read_rates(report: &mut Report, fields: &mut Fields<'_>) -> (Option<Rate>, Option<Rate>) {
    let half = fields.get("half_size");
    let half_size = half.as_ref().map(|half| half.read(report, size));
    let mut side = |key, hint| {
        let side = fields.need(report, key, hint)?;
        if matches!(side.node.value, Value::Map(_)) {
            if let Some(half) = &half {
                let wrong = Wrong::new(format!("`{key}` is measured by size"), "leave `half_size` out");
                half.key_error(report, wrong);
            }
            return read_measured(report, &side);
        }
        Some(Rate::with_half_size(side.read(report, rate)?, half_size.unwrap_or(Some(Bytes::ZERO))?))
    };
    (side("forward", "56.5 GB/s"), side("backward", "57.4 GB/s"))
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

fn read_ends(report: &mut Report, field: &Field<'_>, tiers: &[Tier]) -> Option<(TierId, TierId)> {
    let ends: Vec<_> =
        field.items().iter().map(|end| end.read(report, |text| tier_named(text, tiers))).collect();
    let ends: Vec<TierId> = ends.into_iter().collect::<Option<_>>()?;
    match ends[..] {
        [from, to] if from != to => Some((from, to)),
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
    let mut fields = field.fields(report, "the rates with both directions busy: forward and backward")?;
    let mut side = |key, alone: Option<&Rate>, fields: &mut Fields<'_>| {
        let side = fields.need(report, key, "25 GB/s")?;
        let shared = side.read(report, rate)?;
        if let Some(alone) = alone.map(Rate::peak).filter(|&alone| alone < shared) {
            side.error(report, Wrong::new(format!("faster than the {alone} it has alone"), "at most that"));
            return None;
        }
        Some(shared)
    };
    let forward = side("forward", forward, &mut fields);
    let backward = side("backward", backward, &mut fields);
    fields.finish(report);
    Some((forward?, backward?))
}

fn read_accelerator(report: &mut Report, field: &Field<'_>) -> Option<Accelerator> {
    let mut fields = field.fields(report, "flops, read and launch")?;
    let flops = fields.required(report, "flops", "400 TFLOP/s", flops);
    let read = fields.required(report, "read", "2500 GB/s", rate);
    let launch = fields.required(report, "launch", "3 us", time);
    fields.finish(report);
    Some(Accelerator { flops: flops?, read: read?, launch: launch? })
}

/// Reads `host`: what the host's own processor can do.
fn read_host(report: &mut Report, field: &Field<'_>) -> Option<Vec<Codec>> {
    let mut fields = field.fields(report, "codecs")?;
    let codecs = fields
        .need(report, "codecs", "{ int8: { encode: 4 GB/s, decode: 8 GB/s } }")
        .and_then(|codecs| read_codecs(report, &codecs));
    fields.finish(report);
    codecs
}

fn read_codecs(report: &mut Report, field: &Field<'_>) -> Option<Vec<Codec>> {
    let fields = field.fields(report, "format names, each with encode and decode")?;
    let mut codecs = Vec::new();
    for entry in fields.entries {
        let codec = fields.field(entry);
        let id = format(&entry.key).map_err(|wrong| codec.key_error(report, wrong)).ok();
        let Some(mut rates) = codec.fields(report, "{ encode: 250 GB/s, decode: 200 GB/s }") else {
            continue;
        };
        let encode = rates.required(report, "encode", "250 GB/s", rate);
        let decode = rates.required(report, "decode", "200 GB/s", rate);
        rates.finish(report);
        codecs.push(id.zip(encode).zip(decode).map(|((format, encode), decode)| Codec {
            format,
            encode,
            decode,
        }));
    }
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
