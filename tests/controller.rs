//! What is promised of the controller in closed loop: its prices settle, speculation does no harm where links are full and
//! most of the good it could where they are not, and look-ahead is made use of.

use crate::data;
use crate::predictor::{SHAPE, demands, experts, found};
use policy::control::Prices;
use policy::event::{Event, EventKind, Platform};
use policy::machine::Class;
use policy::predict::{Distances, Kind};
use policy::registry::lookup;
use policy::{Bytes, LayerId};
use sim::{Case, Keep, Summary};

fn case(scenario: &str, overrides: &[(&str, &str)]) -> Case {
    let path = format!("{}/scenarios/{scenario}.yaml", crate::ROOT);
    let overrides: Vec<_> =
        overrides.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let scenario = scenarios::load(&path, &overrides, &sim::resolve::check_policy);
    Case::from_scenario(&scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))).unwrap()
}

/// Steps of a run, and when memory is halved and given back.
const STEPS: usize = 2400;
const HALVED: usize = 800;
const GIVEN_BACK: usize = 1600;
/// Steps after which prices have settled: after a change of pressure, and after the drift budget did not bind for long.
const SETTLED_AFTER: usize = 200;
const FELT_AFTER: usize = 500;
/// Steps that are averaged to tell, and how far the logarithm of such a mean may be from that of all.
const WINDOW: usize = 100;
const MEMORY_BAND: f64 = 0.1;
/// A factor of two: where what is used hardly depends on its price, the price wanders, and it hardly matters.
const DRIFT_BAND: f64 = std::f64::consts::LN_2;

/// The prices after every step of a run in which other users of fast memory take half of it for a while.
fn prices_under_pressure(drift_budget: &str, slots: &str) -> Vec<Prices> {
    let case = case(
        "mixtral-8x7b-h100",
        &[
            ("guard.drift_budget", drift_budget),
            ("encoded", "[int8, int4_g32, bf16_packed]"),
            ("memory.hbm", slots),
            ("workload.limit_tokens", &STEPS.to_string()),
            ("workload.routing.zipf_markov.traces", "1"),
        ],
    );
    let entry = lookup("predictive").unwrap();
    let params = entry.resolve(&Default::default()).unwrap();
    let mut orchestrator = case.orchestrator(entry, &params, false).unwrap();
    let mut world = case.world(false).unwrap();
    let fast = case.machine.tiers_of(Class::Fast).next().unwrap();
    let budget = case.budgets[fast.index()];
    let (mut commands, mut prices) = (Vec::new(), Vec::new());
    while let Some(event) = world.next_event().unwrap() {
        let at = event.at;
        orchestrator.handle(event, &mut commands).unwrap();
        let step = orchestrator.context().signals.step as usize;
        if step > prices.len() {
            prices.push(orchestrator.prices().unwrap());
            let left = match step {
                HALVED => Some(Bytes(budget.0 / 2)),
                GIVEN_BACK => Some(budget),
                _ => None,
            };
            if let Some(left) = left {
                let reserved = budget.saturating_sub(left);
                let kind = EventKind::MemoryPressure { tier: fast, reserved };
                orchestrator.handle(Event { at, kind }, &mut commands).unwrap();
            }
        }
        commands.drain(..).for_each(|command| world.submit(command).unwrap());
    }
    assert_eq!(prices.len(), STEPS);
    prices
}

/// The mean logarithm of a price.
fn mean_log(prices: &[f64]) -> f64 {
    prices.iter().map(|price| price.ln()).sum::<f64>() / prices.len() as f64
}

/// The mean logarithm of a price, and how far that of a window is from it at most.
fn settled(prices: &[Prices], price: fn(&Prices) -> f64) -> (f64, f64) {
    let prices: Vec<f64> = prices.iter().map(price).collect();
    let mean = mean_log(&prices);
    let off = prices.chunks_exact(WINDOW).map(|window| (mean_log(window) - mean).abs());
    (mean, off.fold(0.0, f64::max))
}

#[test]
fn prices_settle_after_a_step_change_of_pressure() {
    for (budget, slots) in [("0.5 %", "96 slots"), ("1 %", "96 slots"), ("9 %", "64 slots")] {
        let prices = prices_under_pressure(budget, slots);
        let memory: fn(&Prices) -> f64 = |prices| prices.memory;
        for (name, price, band) in
            [("memory", memory, MEMORY_BAND), ("drift", |prices| prices.drift, DRIFT_BAND)]
        {
            let phases = [(0, HALVED), (HALVED, GIVEN_BACK), (GIVEN_BACK, STEPS)];
            let [before, halved, after] =
                phases.map(|(from, to)| settled(&prices[from + SETTLED_AFTER..to], price));
            println!("{budget}, {name}: {before:.3?}, with half the memory {halved:.3?}, then {after:.3?}");
            for (_, off) in [before, halved, after] {
                assert!(off < band, "{budget}: the price of {name} is off by {off}");
            }
            assert!(halved.0 > before.0 && halved.0 > after.0, "{budget}: scarcer, and {name} is no dearer");
        }
    }
}

#[test]
fn a_drift_budget_that_has_not_bound_is_felt_soon_when_it_does() {
    let prices = prices_under_pressure("9 %", "128 slots");
    let (before, at) = (prices[HALVED / 8].drift, prices[HALVED - 1].drift);
    assert!(at < before, "the budget binds: {at} is no less than {before}");
    let (level, off) = settled(&prices[HALVED + FELT_AFTER..GIVEN_BACK], |prices| prices.drift);
    println!("9 %, drift: {:.3}, with half the memory {:.3?}", at.ln(), (level, off));
    assert!(off < DRIFT_BAND && level > at.ln() + 1.0, "{off} off {level}");
}

/// A run of a slice of the recorded requests: the summary, and the share of time that the link into fast memory is busy.
fn recorded(machine: &str, slots: u32, policy: &str, lookahead: &str) -> (Summary, f64) {
    let slots = format!("{slots} slots");
    let overrides = [
        ("machine", machine),
        ("memory.hbm", &slots),
        ("workload.limit_tokens", "1500"),
        ("workload.lookahead", lookahead),
    ];
    let case = case("gpt-oss-20b-h100", &overrides);
    let (name, ahead) = policy.split_once(' ').unwrap_or((policy, ""));
    let entry = lookup(name).unwrap();
    let ahead = ahead.parse().ok().map(|ahead: f64| ("ahead".to_owned(), ahead));
    let params = entry.resolve(&ahead.into_iter().collect()).unwrap();
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
    let summary = Summary::new(&case, &outcome, name, 0.0);
    let busy = summary.links.iter().map(|link| link.utilization).fold(0.0, f64::max);
    (summary, busy)
}

fn stall(machine: &str, slots: u32, policy: &str, lookahead: &str) -> f64 {
    recorded(machine, slots, policy, lookahead).0.stall_s()
}

#[test]
fn on_a_saturated_link_speculation_costs_nothing() {
    if data().is_none() {
        return;
    }
    for slots in [115, 192] {
        let (without, busy) = recorded("h100-sxm", slots, "predictive 0", "[]");
        let with = stall("h100-sxm", slots, "predictive", "[]");
        println!(
            "{slots} slots, link {busy:.2} busy: {:.3} s stall, {with:.3} s with speculation",
            without.stall_s()
        );
        assert!(busy > 0.75, "{busy} busy is not saturated");
        assert!(with <= 1.01 * without.stall_s(), "{with} s against {} s", without.stall_s());
    }
}

/// Layers ahead that are speculated on.
const DEPTH: usize = 8;
const PERFECT: &str = "[100 %, 100 %, 100 %, 100 %, 100 %, 100 %, 100 %, 100 %]";

/// The share of chosen experts that are among as many predicted a layer ahead, and [`DEPTH`] layers ahead.
fn recall(ahead: usize) -> Option<f64> {
    let demands = demands(&data()?, &["mmlu_test_a"]);
    let mut predictor = Kind::Ensemble.build(SHAPE, Distances::until(DEPTH, SHAPE.layers));
    let (from, to) = (500 * SHAPE.layers, 1500 * SHAPE.layers);
    let mut right = 0;
    for step in 0..to {
        predictor.observe(LayerId((step % SHAPE.layers) as u16), &experts(&demands, step), 1.0);
        let likely = predictor.next_visit(LayerId(((step + ahead) % SHAPE.layers) as u16));
        if step >= from {
            right += found(likely, &experts(&demands, step + ahead), SHAPE.selected);
        }
    }
    Some(right as f64 / ((to - from) * SHAPE.selected) as f64)
}

/// What is missing at more slots is what nobody expected: there the share falls.
#[test]
fn on_a_slack_link_speculation_removes_most_of_what_its_recall_lets_it() {
    let (Some(near), Some(far)) = (recall(1), recall(DEPTH)) else { return };
    println!("recall {near:.3} one layer ahead, {far:.3} {DEPTH} layers ahead");
    for (slots, least) in [(192, 0.8), (288, 0.8), (384, 0.6)] {
        let (without, busy) = recorded("gh200", slots, "predictive 0", "[]");
        let without = without.stall_s();
        let removed = without - stall("gh200", slots, "predictive", "[]");
        let perfect = without - stall("gh200", slots, "predictive", PERFECT);
        let share = removed / perfect / far;
        println!(
            "{slots} slots, link {busy:.2} busy: {without:.3} s stall, {removed:.3} s removed, {perfect:.3} s by perfect look-ahead: {share:.2} of it times recall"
        );
        assert!(busy < 0.5, "{busy} busy is not slack");
        assert!(share >= least, "{slots} slots: {share}");
    }
}

#[test]
fn look_ahead_serves_it_better_than_those_who_rely_on_it() {
    if data().is_none() {
        return;
    }
    for lookahead in ["[90 %, 80 %, 70 %]", "[100 %, 100 %, 100 %]"] {
        let stall = |policy, lookahead| stall("h100-sxm", 192, policy, lookahead);
        let (without, with) = (stall("predictive", "[]"), stall("predictive", lookahead));
        println!("predictive: {without:.3} s stall, {with:.3} s with look-ahead of {lookahead}");
        assert!(with < 0.99 * without, "{with} s against {without} s");
        for other in ["hobbit", "mixtral_offloading", "hybri_moe", "pro_moe", "adap_moe", "fine_moe"] {
            let theirs = stall(other, lookahead);
            println!("{other}: {theirs:.3} s");
            assert!(with < theirs, "{with} s against {theirs} s of {other}");
        }
    }
}
