//! The processors of a machine file that compute beside its memories: the host's, and those of single memories.

use crate::diagnostics::{Report, Wrong};
use crate::machine::read_codecs;
use crate::machine_keys::{HOST, PROCESSOR};
use crate::reader::{Field, Keys, format};
use crate::tree::Entry;
use crate::units::{count, flops, rate, time};
use policy::kernel::{KernelError, KernelRate};
use policy::machine::{Class, Codec, NearProcessor, Processor, Tier};
use policy::{Bandwidth, FlopRate, TierId};

/// What a processor sustains, and what was measured of it.
pub(crate) type Measured = (Processor, Vec<KernelRate>);

/// The processors beside memories, the host's first: a memory's own computes from that one, the host's from all other staged ones.
pub(crate) fn near(tiers: &[Tier], host: Option<Measured>, own: Vec<Option<Measured>>) -> Vec<NearProcessor> {
    let ids = || (0..).map(TierId);
    let staged = ids().zip(tiers.iter().zip(&own));
    let staged = staged.filter(|(_, (tier, own))| tier.class == Class::Staged && own.is_none());
    let of_host = host.map(|(processor, kernels)| NearProcessor {
        name: "host".to_owned(),
        tiers: staged.map(|(id, _)| id).collect(),
        of_host: true,
        processor,
        kernels,
    });
    let of_tier = |((id, tier), own): ((TierId, &Tier), Option<Measured>)| {
        let (name, (processor, kernels)) = (tier.name.clone(), own?);
        Some(NearProcessor { name, tiers: vec![id], of_host: false, processor, kernels })
    };
    of_host.into_iter().chain(ids().zip(tiers).zip(own).filter_map(of_tier)).collect()
}

/// Reads the processor of a memory of that name, class and read rate; of so many of them, each of which has a part of every block.
pub(crate) fn of_memory(
    report: &mut Report,
    field: &Field<'_>,
    (name, class, gives): (&str, Option<Class>, Option<Bandwidth>),
    stripes: u32,
) -> Option<Measured> {
    let keys = field.keys(report, &PROCESSOR)?;
    let measured = processor_of(report, &keys);
    if class == Some(Class::Fast) {
        let hint = "leave it out: that is what `accelerator` says";
        field.key_error(report, Wrong::new("the accelerator computes from the fast tier", hint));
        return None;
    }
    let (Processor { flops, read, launch }, kernels) = measured?;
    if let (Some(gives), Some(field)) = (gives.filter(|&gives| gives < read), keys.get("read")) {
        let message = format!("it reads {read}, more than the {gives} that {name} gives");
        let hint = format!(
            "at most `tiers.{name}.read`, which is what the memory gives inside: what leaves it is what its links carry"
        );
        field.error(report, Wrong::new(message, hint));
        return None;
    }
    let times = |value: u64| value.saturating_mul(u64::from(stripes));
    let processor = Processor { flops: FlopRate(times(flops.0)), read: Bandwidth(times(read.0)), launch };
    Some((processor, kernels.iter().map(|kernel| kernel.striped(stripes)).collect()))
}

fn read_processor(report: &mut Report, field: &Field<'_>) -> Option<Measured> {
    let keys = field.keys(report, &PROCESSOR)?;
    processor_of(report, &keys)
}

/// Reads what any processor says of itself.
pub(crate) fn processor_of(report: &mut Report, keys: &Keys<'_>) -> Option<Measured> {
    let flops = keys.required(report, "flops", flops);
    let read = keys.required(report, "read", rate);
    let launch = keys.required(report, "launch", time);
    let kernels = keys.get("kernels").map_or(Some(vec![]), |kernels| read_kernels(report, &kernels));
    Some((Processor { flops: flops?, read: read?, launch: launch? }, kernels?))
}

fn read_kernels(report: &mut Report, field: &Field<'_>) -> Option<Vec<KernelRate>> {
    let fields = field.fields(report, "format names, each with rates by tokens")?;
    let read = |entry: &Entry| {
        let field = fields.field(entry);
        let id = format(&entry.key).map_err(|wrong| field.key_error(report, wrong)).ok();
        let rates = field.fields(report, "tokens, each with a rate: { 1: 2200 GB/s, 16: 1900 GB/s }")?;
        let mut points = Vec::new();
        for entry in rates.entries {
            let point = rates.field(entry);
            let tokens = count(&entry.key).map_err(|wrong| point.key_error(report, wrong)).ok();
            points.push(tokens.zip(point.read(report, rate)));
        }
        let points = points.into_iter().collect::<Option<Vec<_>>>()?;
        let hint = "tokens in growing numbers, and no more of them done before fewer";
        let wrong = |error: KernelError| field.error(report, Wrong::new(error.to_string(), hint));
        KernelRate::measured(id?, points).map_err(wrong).ok()
    };
    let kernels: Vec<_> = fields.entries.iter().map(read).collect();
    kernels.into_iter().collect()
}

/// What the host codes, and how it computes.
type HostParts = (Vec<Codec>, Option<Measured>);

pub(crate) fn read_host(report: &mut Report, field: &Field<'_>) -> Option<HostParts> {
    let keys = field.keys(report, &HOST)?;
    let codecs = keys.get("codecs").map_or(Some(vec![]), |codecs| read_codecs(report, &codecs));
    let compute = keys.get("compute").map_or(Some(None), |field| read_processor(report, &field).map(Some));
    Some((codecs?, compute?))
}
