//! A machine that has been measured can be simulated.

use hw::calibrate::{Calibration, Plan};
use hw::codec::coded;
use hw::host::Host;
use policy::units::{Bytes, Nanos};
use policy::{Paths, TierId};
use std::collections::BTreeSet;

fn plan(storage: Bytes) -> Plan {
    Plan {
        name: "measured-here".into(),
        date: "2026-01-01".into(),
        capacity: [Bytes(1 << 30), Bytes(2 << 30), storage],
        cold: Bytes(1 << 20),
        sizes: vec![Bytes(4 << 10), Bytes(256 << 10)],
        large: Bytes(64 << 10),
        expert: [64, 96],
        tokens: vec![1, 3],
        patience: Nanos(1_000_000),
    }
}

/// The machine as a scenario reads it.
fn loaded(yaml: &str) -> policy::Machine {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("machine.yaml"), yaml).unwrap();
    let scenario = "{ base: moe-on-host, machine: machine.yaml, memory: { hbm: 10 slots } }";
    let path = folder.path().join("scenario.yaml");
    std::fs::write(&path, scenario).unwrap();
    let scenario = scenarios::load(path.to_str().unwrap(), &[], &|_| Ok(()));
    scenario.unwrap_or_else(|wrong| panic!("{wrong}\n{yaml}")).machine
}

#[test]
fn a_measured_machine_loads_and_has_every_format() {
    let folder = std::env::temp_dir();
    let mut said = Vec::new();
    let measured =
        Calibration::run(&Host::new(&folder), plan(Bytes(1 << 30)), &mut |what| said.push(what.to_owned()));
    let measured = measured.unwrap();
    assert!(said.len() >= 8 && said[0].contains("dram to hbm"), "{said:?}");
    let machine = loaded(&measured.yaml());
    assert_eq!(machine.name, "measured-here");
    assert_eq!(
        machine.tiers.iter().map(|tier| tier.capacity).collect::<Vec<_>>(),
        plan(Bytes(1 << 30)).capacity
    );
    let direct: BTreeSet<_> = coded().filter(|format| format.get().direct).collect();
    for kernels in [&machine.kernels, &machine.near[0].kernels] {
        assert_eq!(kernels.iter().map(|kernel| kernel.format()).collect::<BTreeSet<_>>(), direct);
        assert!(kernels.iter().all(|kernel| kernel.points().len() == 2));
    }
    assert_eq!(machine.codecs.len(), coded().count() - 3, "all but the plain ones");
    assert_eq!(Paths::new(&machine).iter().count(), 6, "every tier reaches every other");
}

#[test]
fn copies_cost_in_the_file_what_they_cost_on_the_device() {
    let folder = std::env::temp_dir();
    let measured = Calibration::run(&Host::new(&folder), plan(Bytes::ZERO), &mut |_| {}).unwrap();
    let machine = loaded(&measured.yaml());
    assert_eq!(machine.tiers.len(), 2, "storage is left out");
    let paths = Paths::new(&machine);
    let up = paths.between(TierId(1), TierId(0)).unwrap();
    let times = measured.times();
    let (_, size, time) =
        times.iter().find(|(what, size, _)| what == "dram to hbm" && *size == Bytes(256 << 10)).unwrap();
    let (said, measured) = (up.busy(*size).0 as f64, time.median().0 as f64);
    // The submit cost is one for both directions.
    assert!(
        (said - measured).abs() <= 0.35 * measured + 2e3,
        "{said} ns in the file, {measured} ns measured"
    );
}
