//! What the levers change, and that the bound follows.

use crate::small::{Small, fast};
use policy::FormatId;
use policy::registry::lookup;
use sim::levers::{LEVERS, Report, Stuck, report};

fn pull(small: &Small) -> Report {
    let entry = lookup("predictive").unwrap();
    report(&small.case(), entry, &entry.resolve(&Default::default()).unwrap()).unwrap()
}

fn changed(small: &Small, lever: &str) -> sim::Case {
    let lever = LEVERS.iter().find(|known| known.name == lever).unwrap();
    (lever.change)(&small.case()).unwrap().0
}

#[test]
fn more_slots_are_a_quarter_more_memory_and_stall_less() {
    let small = Small { slots: 12, tokens: 300, ..Small::default() };
    assert_eq!((small.case().capacity(), changed(&small, "more slots").capacity()), (12, 15));
    let Report { rows, verdict, .. } = pull(&small);
    let (own, more) = (&rows[0], &rows[1]);
    assert_eq!(
        (own.lever, more.lever, more.change.as_str()),
        (None, Some("more slots"), "15 slots instead of 12")
    );
    assert!(more.stall_s < own.stall_s && more.stall_bound_s < own.stall_bound_s);
    assert!((more.removes - (1.0 - more.stall_s / own.stall_s)).abs() < 1e-12);
    let verdict = verdict.unwrap();
    assert_eq!((Some(verdict.bound_s()), verdict.stall_s), (own.stall_bound_s, own.stall_s));
}

#[test]
fn a_machine_with_a_slot_for_every_block_has_no_more_to_give() {
    let report = pull(&Small { slots: 32, ..Small::default() });
    let full = Stuck { lever: "more slots", reason: "there is a slot for every block" };
    assert!(report.stuck.contains(&full), "{:?}", report.stuck);
    assert!(report.rows.iter().all(|row| row.lever != Some("more slots")));
}

#[test]
fn fewer_bits_are_the_next_format_and_the_drift_it_takes() {
    let format = |name| FormatId::named(name).unwrap();
    let small = Small { slots: 12, tokens: 300, ..Small::default() };
    // Nothing is kept beside bf16: the next is the best of 8 bits.
    let case = changed(&small, "fewer bits");
    assert_eq!(case.encoded, [format("int8_g32")]);
    assert!((case.guard.drift_budget / 0.0096131 - 1.0).abs() < 1e-3);
    assert!(
        case.machine.tier(case.home.first()).capacity > small.case().machine.tier(case.home.first()).capacity
    );
    assert_eq!(case.budgets[fast(&case.machine).index()], small.case().budgets[fast(&case.machine).index()]);
    let Report { rows, .. } = pull(&small);
    let fewer = rows.iter().find(|row| row.lever == Some("fewer bits")).unwrap();
    assert!(fewer.stall_s < rows[0].stall_s && fewer.stall_bound_s < rows[0].stall_bound_s);
    assert!(rows[0].drift_max == 0.0 && fewer.drift_max > 0.0 && fewer.drift_max <= 0.00962);
    // A format that is kept, but may not be used everywhere yet, comes before a new one.
    let kept = changed(&Small { encoded: &["int8"], drift_budget: 0.6, ..small.clone() }, "fewer bits");
    assert_eq!(kept.encoded, [format("int8")]);
    assert!((kept.guard.drift_budget / 0.015055 - 1.0).abs() < 1e-3);
}

#[test]
fn a_format_below_which_no_error_is_known_has_no_fewer_bits() {
    let report = pull(&Small { family: "gpt_oss", ..Small::default() });
    let none = Stuck { lever: "fewer bits", reason: "no format with fewer bits has a known error" };
    assert_eq!(report.stuck, [none]);
}

#[test]
fn look_ahead_is_what_was_measured_or_perfect_and_never_less_than_there_is() {
    let small = Small { slots: 12, tokens: 300, ..Small::default() };
    assert_eq!(changed(&small, "look-ahead").lookahead, [0.85, 0.81, 0.77]);
    assert_eq!(changed(&small, "perfect look-ahead").lookahead, [1.0; 3]);
    let known = Small { lookahead: &[90, 60, 50, 40], ..small.clone() };
    assert_eq!(changed(&known, "look-ahead").lookahead, [0.9, 0.81, 0.77, 0.4]);
    let Report { rows, .. } = pull(&small);
    let stall = |lever: &str| rows.iter().find(|row| row.lever == Some(lever)).unwrap().stall_s;
    assert!(stall("look-ahead") < rows[0].stall_s, "{} of {}", stall("look-ahead"), rows[0].stall_s);
    assert!(stall("perfect look-ahead") < stall("look-ahead"));
    let report = pull(&Small { lookahead: &[100, 100, 100], ..small });
    let reason = "routers are asked as far ahead already, and as often right";
    for lever in ["look-ahead", "perfect look-ahead"] {
        assert!(report.stuck.contains(&Stuck { lever, reason }), "{:?}", report.stuck);
    }
}

#[test]
fn misses_that_the_host_may_compute_stall_less() {
    let small = Small { slots: 12, tokens: 300, ..Small::default() };
    let Report { rows, .. } = pull(&small);
    let host = rows.iter().find(|row| row.lever == Some("CPU compute")).unwrap();
    assert!(host.stall_s < rows[0].stall_s && host.stall_bound_s.is_none());
    let stuck = pull(&Small { host: true, ..small }).stuck;
    assert!(
        stuck.contains(&Stuck { lever: "CPU compute", reason: "the host computes already" }),
        "{stuck:?}"
    );
}

#[test]
fn the_command_prints_every_row() {
    let run = |more: &[&str]| {
        let output =
            crate::hotset().args(["simulate", "quickstart", "--levers"]).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let json: serde_json::Value = serde_json::from_str(&run(&["--format", "json"])).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let levers: Vec<_> = rows.iter().map(|row| row["lever"].as_str()).collect();
    let pulled = ["more slots", "look-ahead", "perfect look-ahead", "CPU compute"].map(Some);
    assert_eq!((levers[0], &levers[1..]), (None, &pulled[..]));
    let table = run(&[]);
    for row in rows {
        let stall = row["stall_s"].as_f64().unwrap();
        assert!(table.contains(&format!("{stall:.3}")), "{table}");
        // There is no bound where the host computes.
        let bound = row["stall_bound_s"].as_f64();
        assert_eq!(bound.is_none(), row["lever"] == "CPU compute");
        if let Some(bound) = bound {
            assert!(0.0 < bound && bound < stall && table.contains(&format!("{bound:.3}")), "{table}");
        }
    }
    assert!(table.contains("A better policy can win at most"), "{table}");
}
