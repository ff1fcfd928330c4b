//! The resources of a machine, and a case with more of one.

use crate::simulate::Case;
use policy::kernel::KernelRate;
use policy::machine::{Class, Processor};
use policy::{Bytes, Machine, TierId};
use std::sync::Arc;

/// A resource that more of might help.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    /// Its name in reports.
    pub name: &'static str,
    /// What there is more of.
    pub about: &'static str,
    /// The case with so many per cent of it; `None` where it has none, cannot use more, or holds nothing with less.
    pub change: fn(&Case, u64) -> Option<Case>,
}

/// The bytes of the fast tier.
pub(super) const MEMORY: Resource =
    Resource { name: "memory", about: "bytes of the fast tier", change: memory };

/// The resources, in the order in which they are reported. Adding one is adding a row.
pub static RESOURCES: [Resource; 5] = [
    MEMORY,
    Resource { name: "kv", about: "bytes that caches in pages may take", change: caches },
    Resource { name: "link", about: "bandwidth of every link", change: links },
    Resource { name: "compute", about: "matrix rate of the accelerator", change: compute },
    Resource {
        name: "memory_bandwidth",
        about: "rate at which the fast tier is read and written",
        change: bandwidth,
    },
];

fn fast(case: &Case) -> Option<TierId> {
    case.machine.tiers_of(Class::Fast).next()
}

fn memory(case: &Case, percent: u64) -> Option<Case> {
    let tier = fast(case)?;
    let fast = tier.index();
    if percent > 100 && case.cache.is_none() && case.capacity() >= case.model.blocks.len() {
        return None;
    }
    let changed = case.with_budgets(|budgets, reserved| {
        let whole = budgets[fast].0.saturating_add(reserved.0);
        budgets[fast] = Bytes(whole).at_percent(percent).saturating_sub(reserved);
    });
    // More than the machine's tier has is asked of a machine whose tier has more.
    let holds = changed.most(tier);
    let changed = changed_machine(&changed, |machine| {
        let tier = &mut machine.tiers[fast];
        tier.capacity = tier.capacity.max(holds);
    });
    (changed.capacity() > 0).then_some(changed)
}

fn caches(case: &Case, percent: u64) -> Option<Case> {
    let mut cache = case.cache?;
    cache.most = cache.most.at_percent(percent);
    Some(Case { cache: Some(cache), ..case.clone() })
}

fn links(case: &Case, percent: u64) -> Option<Case> {
    Some(changed_machine(case, |machine| {
        for link in &mut machine.links {
            link.rate = link.rate.at_percent(percent);
            link.duplex = link.duplex.at_percent(percent);
        }
    }))
}

/// What was measured at a rate includes the memory's; it counts as compute.
fn compute(case: &Case, percent: u64) -> Option<Case> {
    Some(changed_machine(case, |machine| {
        machine.accelerator.flops = machine.accelerator.flops.at_percent(percent);
        let faster = |kernel: &KernelRate| {
            let points = kernel.points().iter().map(|&(tokens, rate)| (tokens, rate.at_percent(percent)));
            KernelRate::measured(kernel.format(), points.collect()).unwrap_or_else(|_| kernel.clone())
        };
        machine.kernels = machine.kernels.iter().map(faster).collect();
        let tables = machine.times.iter_mut().flat_map(|times| times.tables.iter_mut().flatten());
        tables.for_each(|table| *table = table.at_percent(percent));
    }))
}

fn bandwidth(case: &Case, percent: u64) -> Option<Case> {
    let fast = fast(case)?.index();
    Some(changed_machine(case, |machine| {
        let Processor { read, .. } = machine.accelerator;
        machine.accelerator.read = read.at_percent(percent);
        let tier = &mut machine.tiers[fast];
        (tier.read, tier.write) = (tier.read.at_percent(percent), tier.write.at_percent(percent));
    }))
}

fn changed_machine(case: &Case, change: impl FnOnce(&mut Machine)) -> Case {
    let mut machine = (*case.machine).clone();
    change(&mut machine);
    Case { machine: Arc::new(machine), ..case.clone() }
}
