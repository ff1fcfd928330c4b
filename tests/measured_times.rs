//! Operator times against measurements that the model of them has not seen: tables made of half of a published profile, and
//! rooflines fitted on that half, on the other half.

use crate::data;
use policy::event::{Form, Part, Read, Slice};
use policy::machine::Class;
use policy::times::Basis;
use policy::{BlockId, LayerId, RequestId};
use sim::Case;
use sim::operators::Operators;
use sim::provenance::{Kind, Provenance};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

const MIXTRAL: &str = "compute_profiles/llmservingsim_v0_h100_mixtral-8x7b_tp1_layers.csv";
const QWEN: &str = "compute_profiles/llmservingsim_rtxpro6000_qwen3-30b-a3b_bf16_tp1_moe.csv";

const MIXER: [&str; 8] =
    ["input_layernorm", "q_proj", "k_proj", "v_proj", "rope", "o_proj", "post_layernorm", "gate"];
const EXPERT: [&str; 4] = ["expert.w1", "expert.w3", "act_fn", "expert.w2"];
const HEAD: [&str; 2] = ["final_layernorm", "lm_head"];

/// Whether a number of tokens is in the half that is kept: of each octave, the upper half. So what is left out must be
/// interpolated over a gap as wide as half of its lower end, from one token to two thousand.
fn kept(tokens: u32) -> bool {
    let octave = tokens.ilog2();
    octave == 0 || tokens >= (3 << octave) / 2
}

/// A profile: nanoseconds by layer and tokens.
fn profile(folder: &Path) -> BTreeMap<String, BTreeMap<u32, f64>> {
    let mut layers: BTreeMap<String, BTreeMap<u32, f64>> = BTreeMap::new();
    let mut reader = csv::Reader::from_path(folder.join(MIXTRAL)).unwrap();
    for row in reader.records() {
        let row = row.unwrap();
        let time: f64 = row[4].parse().unwrap();
        layers.entry(row[0].to_owned()).or_default().insert(row[1].parse().unwrap(), time);
    }
    layers
}

/// Writes the rows of a file that are kept, by their tokens, to another one.
fn halve(from: &Path, to: &Path, tokens: usize, keep: impl Fn(u32) -> bool) -> (usize, usize) {
    let mut reader = csv::Reader::from_path(from).unwrap();
    let mut writer = csv::Writer::from_path(to).unwrap();
    writer.write_record(reader.headers().unwrap()).unwrap();
    let (mut all, mut half) = (0, 0);
    for row in reader.records() {
        let row = row.unwrap();
        all += 1;
        if keep(row[tokens].parse().unwrap()) {
            half += 1;
            writer.write_record(&row).unwrap();
        }
    }
    writer.flush().unwrap();
    (half, all)
}

fn case(machine: &str, model: &str, times: &str) -> Case {
    let text = format!(
        "name: measured
machine: {{ base: {machine}, accelerator: {{ times: {{ {model}: {times} }} }} }}
model: {model}
workload: {{ routing: {{ zipf_markov: {{ traces: 1, tokens: 8 }} }} }}
policy: lru
"
    );
    let scenario = scenarios::load_text("measured.yaml", &text, &[], &sim::resolve::check_policy);
    Case::from_scenario(&scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))).unwrap()
}

/// What one part of a layer takes, attention itself apart, and where that comes from.
fn took(case: &Case, part: Part, slices: &[Slice], emitting: u64, reads: &[Read]) -> (f64, Basis) {
    let operators = Operators::new(case.machine.clone(), case.model.clone());
    let mut provenance = Provenance::default();
    provenance.add(&operators.kernel((LayerId(0), part), slices, emitting, reads).booked, 1);
    let row = provenance.rows().find(|(kind, ..)| *kind != Kind::Attention).unwrap();
    (row.2.time.0 as f64, row.1)
}

/// Requests with one token each, or one with all of them.
fn slices(requests: u32, tokens: u32) -> Vec<Slice> {
    (0..requests).map(|id| Slice { request: RequestId(id), cached: 0, tokens, rank: 0 }).collect()
}

/// The first `number` blocks of the first layer, for `tokens` tokens that choose `selected` each, as evenly as it goes.
fn even(case: &Case, number: u32, choices: u32) -> Vec<Read> {
    let tier = case.machine.tiers_of(Class::Fast).next().unwrap();
    let of = |id: u32| Read {
        block: BlockId(id),
        form: Form { tier, format: case.model.blocks[id as usize].native },
        tokens: choices * (id + 1) / number - choices * id / number,
    };
    (0..number).map(of).filter(|read| read.tokens > 0).collect()
}

/// Quantiles of the errors of predictions, and the line that says so.
fn judge(what: &str, mut errors: Vec<f64>) -> f64 {
    errors.sort_by(f64::total_cmp);
    let at = |share: f64| errors[((errors.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} points, median error {:.2} %, p90 {:.2} %, largest {:.2} %",
        errors.len(),
        at(0.5) * 100.0,
        at(0.9) * 100.0,
        at(1.0) * 100.0
    );
    at(0.5)
}

fn off(ours: f64, theirs: f64) -> f64 {
    (ours / theirs - 1.0).abs()
}

#[test]
fn half_of_mixtral_s_profile_gives_the_other_half() {
    let Some(data) = data() else { return };
    let folder = TempDir::new().unwrap();
    let half = folder.path().join("half.csv");
    let (few, all) = halve(&data.join(MIXTRAL), &half, 1, kept);
    assert!((few as f64 / all as f64 - 0.5).abs() < 0.02, "{few} of {all}");
    let of =
        |layers: &[&str]| format!("{{ csv: {{ path: {}, sum: [{}] }} }}", half.display(), layers.join(", "));
    let times = format!("{{ mixer: {}, expert: {}, head: {} }}", of(&MIXER), of(&EXPERT), of(&HEAD));
    let case = case("h100-sxm", "mixtral-8x7b", &times);

    let profile = profile(&data);
    let theirs =
        |layers: &[&str], tokens: u32| layers.iter().map(|layer| profile[*layer][&tokens]).sum::<f64>();
    let mixer = |tokens| took(&case, Part::Mixer, &slices(1, tokens), 0, &[]);
    let expert = |tokens| took(&case, Part::Experts, &[], 0, &even(&case, 1, tokens));
    let head = |tokens| took(&case, Part::Head, &[], u64::from(tokens), &[]);
    let held_out: Vec<u32> = (1..2048).filter(|&tokens| !kept(tokens)).collect();
    type Ours<'a> = &'a dyn Fn(u32) -> (f64, Basis);
    let ours: [Ours<'_>; 3] = [&mixer, &expert, &head];
    let measured = [("mixer", &MIXER[..]), ("expert", &EXPERT), ("head", &HEAD)];
    for ((name, layers), ours) in measured.into_iter().zip(ours) {
        let error = |&tokens: &u32| {
            let (time, basis) = ours(tokens);
            assert_eq!(basis, Basis::Measured);
            off(time, theirs(layers, tokens))
        };
        let errors = held_out.iter().map(error).collect();
        assert!(judge(name, errors) < 0.05);
    }

    // A whole layer without attention itself, which the profile does not have. Prompts choose evenly among all experts;
    // requests that decode, as many as they can. What mixer and experts take must both be new.
    let layer = |slices: &[Slice], tokens: u32, experts: u32| {
        let reads = even(&case, experts, 2 * tokens);
        if kept(tokens) || reads.iter().any(|read| kept(read.tokens)) {
            return None;
        }
        let ours = took(&case, Part::Mixer, slices, 0, &[]).0 + took(&case, Part::Experts, &[], 0, &reads).0;
        let each = |read: &Read| theirs(&EXPERT, read.tokens);
        let theirs = theirs(&MIXER, tokens) + reads.iter().map(each).sum::<f64>();
        if tokens.is_power_of_two() {
            let requests = slices.len();
            let (us, them) = (ours / 1e3, theirs / 1e3);
            println!("{requests} requests, {tokens} tokens: {them:.1} us measured, {us:.1} us");
        }
        Some(off(ours, theirs))
    };
    let prefill = (64..2048).filter_map(|tokens| layer(&slices(1, tokens), tokens, 8)).collect();
    assert!(judge("prefill of a layer", prefill) < 0.05);
    let decode = (1..=256).filter_map(|tokens| layer(&slices(tokens, 1), tokens, (2 * tokens).min(8)));
    assert!(judge("decode of a layer", decode.collect()) < 0.05);
}

#[test]
fn half_of_qwen_s_table_gives_the_other_half() {
    let Some(data) = data() else { return };
    let folder = TempDir::new().unwrap();
    let half = folder.path().join("half.csv");
    // Every other number of tokens.
    let (few, all) = halve(&data.join(QWEN), &half, 0, |tokens| tokens.ilog2() % 2 == 0);
    assert_eq!((few, all), (24, 50));
    let times = format!("{{ experts: {{ csv: {{ path: {} }} }} }}", half.display());
    let case = case("rtx-pro-6000", "qwen3-30b-a3b", &times);
    let mut reader = csv::Reader::from_path(data.join(QWEN)).unwrap();
    let mut errors = Vec::new();
    for row in reader.deserialize() {
        let (tokens, experts, micros): (u32, u32, f64) = row.unwrap();
        if tokens.ilog2() % 2 == 0 {
            continue;
        }
        let reads = even(&case, experts, 8 * tokens);
        let (ours, basis) = took(&case, Part::Experts, &[], 0, &reads);
        // The last number of tokens, and those whose experts were not measured with fewer, are beyond the table.
        println!("{tokens} tokens, {experts} experts: {:.1} us ({micros}), {basis:?}", ours / 1e3);
        errors.push(off(ours / 1e3, micros));
    }
    assert!(judge("experts", errors) < 0.05);
}
