use crate::{case, run};
use policy::event::Part;
use policy::{Bytes, LayerId, Nanos, TierId, Time};
use serde_json::Value;
use sim::Case;
use sim::timeline::Timeline;
use std::collections::BTreeMap;

fn written(timeline: &Timeline) -> Value {
    let mut text = Vec::new();
    timeline.write(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn events<'a>(file: &'a Value, kind: &str) -> Vec<&'a Value> {
    file["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == kind).collect()
}

/// Nanoseconds of a field written in microseconds.
fn nanos(event: &Value, field: &str) -> u64 {
    (event[field].as_f64().unwrap() * 1e3).round() as u64
}

fn end(span: &Value) -> u64 {
    nanos(span, "ts") + nanos(span, "dur")
}

/// The spans of each track, by its name.
fn tracks(file: &Value) -> BTreeMap<String, Vec<&Value>> {
    let mut tracks: BTreeMap<u64, (String, Vec<&Value>)> = BTreeMap::new();
    for named in events(file, "M").into_iter().filter(|event| event["name"] == "thread_name") {
        let name = named["args"]["name"].as_str().unwrap().to_owned();
        tracks.insert(named["tid"].as_u64().unwrap(), (name, Vec::new()));
    }
    for span in events(file, "X") {
        tracks.get_mut(&span["tid"].as_u64().unwrap()).unwrap().1.push(span);
    }
    tracks.into_values().collect()
}

fn assert_well_formed(file: &Value, case: &Case) {
    for (name, spans) in tracks(file) {
        for pair in spans.windows(2) {
            assert!(end(pair[0]) <= nanos(pair[1], "ts"), "{name}: {} overlaps {}", pair[0], pair[1]);
        }
    }
    let mut last: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for level in events(file, "C") {
        let name = level["name"].as_str().unwrap();
        let tier = case.machine.tiers.iter().find(|tier| tier.name == name).unwrap();
        let bytes = level["args"]["block_bytes"].as_u64().unwrap();
        assert!(bytes <= tier.capacity.0, "{level} is over {}", tier.capacity);
        let at = nanos(level, "ts");
        assert!(last.insert(name, (at, bytes)).is_none_or(|(before, _)| before < at), "{level} goes back");
    }
}

#[test]
fn spans_add_up_to_what_the_run_counted() {
    for engines in ["1", "3"] {
        let case = case("quickstart", &[("machine.links.pcie.engines", engines)]);
        let outcome = run(&case, |_| {});
        let file = written(outcome.world.timeline().unwrap());
        assert_well_formed(&file, &case);
        assert_eq!(file["otherData"]["spans_left_out"], 0);
        let tracks = tracks(&file);
        let time = |track: &str| tracks[track].iter().map(|span| nanos(span, "dur")).sum::<u64>();
        let stall = outcome.orchestrator.tally().stall_total();
        assert!(stall > Nanos::ZERO);
        assert_eq!(Nanos(time("stall")), stall);
        assert_eq!(Nanos(time("compute")), outcome.world.compute_time());
        let (_, count) = outcome.world.links().next().unwrap();
        let of_link = || tracks.iter().filter(|(name, _)| name.starts_with("pcie dram to hbm"));
        assert_eq!(of_link().count().to_string(), engines);
        let spans: Vec<_> = of_link().flat_map(|(_, spans)| spans.iter().copied()).collect();
        let sum = |field: &str| spans.iter().map(|span| span["args"][field].as_f64().unwrap()).sum::<f64>();
        assert!(count.bytes > 0);
        assert_eq!(sum("bytes") as u64, count.bytes);
        assert_eq!((sum("queued_us") * 1e3).round() as u64, count.queued.0);
        if engines == "1" {
            let busy: u64 = spans.iter().map(|span| nanos(span, "dur")).sum();
            assert_eq!(Nanos(busy), count.busy);
        }
    }
}

#[test]
fn a_run_that_expands_and_drops_keeps_its_levels_in_bounds() {
    let case = case("mixtral-8x7b-4090", &[]);
    let outcome = run(&case, |_| {});
    let file = written(outcome.world.timeline().unwrap());
    assert_well_formed(&file, &case);
    let last = events(&file, "C").into_iter().rfind(|level| level["name"] == "hbm").unwrap();
    assert_eq!(last["args"]["block_bytes"], outcome.world.memory().used(TierId(0)).0);
}

#[test]
fn what_had_no_room_is_said() {
    let case = case("quickstart", &[]);
    let mut timeline = Timeline::new(case.machine.clone(), case.model.clone(), 5);
    for index in 0..8 {
        timeline.compute(LayerId(0), Part::Mixer, Time(index * 1_000), Nanos(500));
        timeline.level(TierId(0), Time(index * 1_000), Bytes(index));
    }
    let file = written(&timeline);
    assert_eq!(tracks(&file)["compute"].len(), 5);
    assert_eq!(file["otherData"]["spans_left_out"], 3);
    assert_eq!(file["otherData"]["levels_left_out"], 3);
    assert_eq!(file["otherData"]["complete_until_us"], 5.0);
    assert_eq!(events(&file, "i")[0]["name"], "incomplete from here: 3 spans and 3 levels left out");
}

#[test]
fn of_changes_at_one_instant_the_last_counts() {
    let case = case("quickstart", &[]);
    let mut timeline = Timeline::new(case.machine.clone(), case.model.clone(), 9);
    for (at, bytes) in [(0, 5), (0, 7), (9, 7), (10, 3), (11, 3), (11, 4)] {
        timeline.level(TierId(0), Time(at), Bytes(bytes));
    }
    let file = written(&timeline);
    let seen = events(&file, "C");
    let seen: Vec<_> = seen.iter().map(|level| (nanos(level, "ts"), &level["args"]["block_bytes"])).collect();
    assert_eq!(seen, [(0, &7.into()), (10, &3.into()), (11, &4.into())]);
}
