//! Max-min fair rates by progressive filling: all flows grow together until a resource is full or a flow has reached its
//! own cap; those stop there and the rest go on growing.

use super::class::Class;

/// The rates, and room to work them out in.
#[derive(Clone, Debug, Default)]
pub(super) struct Filling {
    /// Of each active class; none while it still grows.
    rates: Vec<Option<u64>>,
    /// What is left of each resource.
    left: Vec<u128>,
    /// What the flows that still grow take of each resource, for each unit of rate.
    weight: Vec<u128>,
}

impl Filling {
    /// The rate of a flow of each active class, in their order.
    pub(super) fn rates(&self) -> impl Iterator<Item = &u64> {
        self.rates.iter().flatten()
    }
}

/// Works out the rates of the active classes, in whole units, rounded down: no resource carries more than it can.
pub(super) fn fill(capacity: &[u128], classes: &[Class], active: &[u16], filling: &mut Filling) {
    let Filling { rates, left, weight } = filling;
    rates.clear();
    rates.resize(active.len(), None);
    left.clear();
    left.extend_from_slice(capacity);
    weight.clear();
    weight.resize(capacity.len(), 0);
    let class = |index: u16| &classes[usize::from(index)];
    for class in active.iter().map(|&index| class(index)) {
        for used in &class.uses {
            weight[usize::from(used.resource)] += u128::from(used.weight) * u128::from(class.len());
        }
    }
    let mut growing = active.len();
    while growing > 0 {
        let shares = left.iter().zip(weight.iter()).filter(|(_, weight)| **weight > 0);
        let level = shares.map(|(left, weight)| left / weight).min().unwrap_or(u128::MAX);
        let level = u64::try_from(level).unwrap_or(u64::MAX);
        let open =
            || active.iter().map(|&index| class(index)).zip(rates.iter()).filter(|(_, rate)| rate.is_none());
        // Caps first: what they leave over raises the level.
        let capped = open().any(|(class, _)| class.cap <= level);
        let full: Vec<bool> = left
            .iter()
            .zip(weight.iter())
            .map(|(left, weight)| *weight > 0 && left / weight <= u128::from(level))
            .collect();
        for (&index, rate) in active.iter().zip(rates.iter_mut()).filter(|(_, rate)| rate.is_none()) {
            let class = class(index);
            let stops = if capped {
                class.cap <= level
            } else {
                class.uses.iter().any(|used| full[usize::from(used.resource)])
            };
            if !stops {
                continue;
            }
            let reached = class.cap.min(level);
            *rate = Some(reached);
            growing -= 1;
            for used in &class.uses {
                let taken = u128::from(used.weight) * u128::from(class.len());
                left[usize::from(used.resource)] -= taken * u128::from(reached);
                weight[usize::from(used.resource)] -= taken;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::class::Use;
    use super::*;
    use policy::{Bandwidth, Bytes, Time};
    use proptest::prelude::*;

    fn class(cap: u64, flows: u64, uses: &[(u16, u64)]) -> Class {
        let uses = uses.iter().map(|&(resource, weight)| Use { resource, weight }).collect();
        let mut class = Class::new(Bandwidth(cap), uses);
        (0..flows).for_each(|order| class.join(Time(0), Bytes(1), order, 0));
        class
    }

    proptest! {
        #[test]
        fn every_flow_is_at_its_cap_or_among_the_fastest_of_a_full_resource(
            capacity in proptest::collection::vec(1u64..1 << 50, 6),
            asked in proptest::collection::vec(
                (1u64..1 << 40, 1u64..50, proptest::collection::btree_map(0u16..6, 1u64..1000, 1..4)), 1..12),
        ) {
            let capacity: Vec<u128> = capacity.into_iter().map(|bits| u128::from(bits) << 12).collect();
            let class = |(cap, flows, uses): &(u64, u64, std::collections::BTreeMap<u16, u64>)| {
                class(*cap, *flows, &uses.iter().map(|(&resource, &weight)| (resource, weight)).collect::<Vec<_>>())
            };
            let classes: Vec<Class> = asked.iter().map(class).collect();
            let active: Vec<u16> = (0..classes.len() as u16).collect();
            let mut filling = Filling::default();
            fill(&capacity, &classes, &active, &mut filling);
            let rates: Vec<u64> = filling.rates().copied().collect();
            prop_assert_eq!(rates.len(), classes.len());
            let crossing = |resource: usize| {
                let weight = move |class: &Class| {
                    class.uses.iter().filter(|used| usize::from(used.resource) == resource).map(|used| used.weight).sum::<u64>()
                };
                classes.iter().zip(&rates).map(move |(class, &rate)| (rate, u128::from(weight(class)) * u128::from(class.len())))
                    .filter(|(_, weight)| *weight > 0)
            };
            let carried = |resource: usize| crossing(resource).map(|(rate, weight)| u128::from(rate) * weight).sum::<u128>();
            for (resource, &capacity) in capacity.iter().enumerate() {
                prop_assert!(carried(resource) <= capacity);
            }
            for (class, &rate) in classes.iter().zip(&rates) {
                prop_assert!(rate <= class.cap);
                // Full: not even the least unit more for each of its flows.
                let bottleneck = |used: &Use| {
                    let resource = usize::from(used.resource);
                    let unit: u128 = crossing(resource).map(|(_, weight)| weight).sum();
                    carried(resource) + unit > capacity[resource] && crossing(resource).all(|(other, _)| other <= rate)
                };
                prop_assert!(rate == class.cap || class.uses.iter().any(bottleneck));
            }
        }
    }
}
