//! Requests as they were recorded and as they are drawn, and what routing they follow.

use crate::small::{Small, serve};
use crate::{data, hotset};
use policy::event::{Routed, Slice};
use policy::{LayerId, RequestId, Time};
use scenarios::Length;
use sim::resolve::{Library, check_policy};
use sim::workload::{Request, Workload};
use sim::{Case, Summary};
use std::collections::BTreeSet;
use traces::generate::{Params, SAMPLE};

const TRACE: &str = "arrival_ms,prompt_tokens,output_tokens\n0,30,5\n2.5,1,40\n2.5,200,1\n900,7,90\n";

/// A case that serves a request trace; the routing has 60 tokens.
fn recorded(text: &str, settings: &str) -> Case {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.csv");
    std::fs::write(&path, text).unwrap();
    let requests = format!("{{ csv: {{ path: {}, {settings} }} }}", path.display());
    Case { prefill_chunk: Some(64), ..Small { requests, ..Small::default() }.case() }
}

fn drawn(requests: &str, output_tokens: Length) -> Case {
    let small = Small { requests: requests.to_owned(), ..Small::default() };
    Case { output_tokens: Some(output_tokens), prompt_tokens: Length::Fixed(3), ..small.case() }
}

fn requests(case: &Case) -> Vec<Request> {
    case.workload().unwrap().requests().to_vec()
}

#[test]
fn recorded_requests_come_when_they_came_and_are_as_long_as_they_were() {
    let case = recorded(TRACE, "batch: 3");
    let (outcome, served) = serve(&case, "lru");
    let tally = outcome.orchestrator.tally();
    let served: Vec<_> =
        served.iter().map(|one| (one.request.0, one.arrived, one.context, one.tokens)).collect();
    let at = |ms: f64| Time((ms * 1e6) as u64);
    assert_eq!(
        served,
        [(0, at(0.0), 30, 5), (1, at(2.5), 1, 40), (2, at(2.5), 200, 1), (3, at(900.0), 7, 90)]
    );
    assert_eq!((tally.prompt_tokens, tally.output_tokens), (238, 136));
    let summary = Summary::new(&case, &outcome, "lru", 0.0);
    assert_eq!((summary.routing, summary.requests_completed), ("stand_in", 4));
    assert_eq!(Summary::new(&Small::default().case(), &outcome, "lru", 0.0).routing, "own");
}

#[test]
fn a_recording_is_cut_and_played_faster() {
    let all = |settings| requests(&recorded(TRACE, settings));
    let part = all("rate_scale: 2, from: 1 ms, until: 901 ms, limit: 3");
    let lengths: Vec<_> = part.iter().map(|one| (one.at.unwrap().0, one.context, one.tokens)).collect();
    assert_eq!(lengths, [(750_000, 1, 40), (750_000, 200, 1), (449_500_000, 7, 90)]);
    let cut = Case { limit_tokens: Some(44), ..recorded(TRACE, "batch: 1") };
    assert_eq!(requests(&cut).iter().map(|one| one.tokens).collect::<Vec<_>>(), [5, 39]);
    assert_eq!(serve(&cut, "lru").0.orchestrator.tally().output_tokens, 44);
}

#[test]
fn a_wrong_trace_is_refused_with_its_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.csv");
    std::fs::write(&path, TRACE.replace("900,", "-900,")).unwrap();
    let set = format!("workload.requests={{ csv: {{ path: {} }} }}", path.display());
    let output = hotset().args(["simulate", "quickstart", "--set", &set]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("requests.csv: line 5: it arrives before time 0"), "{told}");
}

/// What a request's tokens need at a layer.
fn routed(workload: &mut Workload, request: u32, tokens: std::ops::Range<u32>, layer: u16) -> Vec<Routed> {
    let slice = Slice {
        request: RequestId(request),
        cached: tokens.start,
        tokens: tokens.end - tokens.start,
        rank: 0,
    };
    workload.route(&[slice], LayerId(layer))
}

fn blocks(routed: &[Routed]) -> BTreeSet<u32> {
    routed.iter().map(|one| one.block.0).collect()
}

#[test]
fn a_request_follows_consecutive_rows_of_the_routing_from_a_place_of_its_own() {
    let mut own = Small::default().case().workload().unwrap();
    let rows = own.requests().iter().map(|one| one.tokens).collect::<Vec<_>>();
    let layers = Small::default().case().model.layers.len() as u16;
    // The rows of the routing, one after the other, as the requests that own them see them.
    let row_of = |own: &mut Workload, request: usize, token: u32| {
        (0..layers)
            .map(|layer| blocks(&routed(own, request as u32, token..token + 1, layer)))
            .collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for (request, &tokens) in rows.iter().enumerate() {
        all.extend((0..tokens).map(|token| row_of(&mut own, request, token)));
    }
    let case = drawn("{ closed: { batch: 2, limit: 8 } }", Length::Fixed(150));
    let mut workload = case.workload().unwrap();
    let mut places = BTreeSet::new();
    for request in 0..8 {
        // 3 tokens of the prompt and 150 of the output: more than twice round.
        let followed: Vec<_> = (0..153).map(|token| row_of(&mut workload, request, token)).collect();
        let fits = |&begin: &usize| (0..153).all(|token| followed[token] == all[(begin + token) % all.len()]);
        let begins: Vec<usize> = (0..all.len()).filter(fits).collect();
        assert_eq!(begins.len(), 1, "request {request}: {begins:?}");
        places.insert(begins[0]);
        // Many tokens at once need what they need one by one.
        for layer in 0..layers {
            let together = blocks(&routed(&mut workload, request as u32, 0..130, layer));
            let apart = followed[..130].iter().flat_map(|row| row[layer as usize].iter().copied());
            assert_eq!(together, apart.collect());
        }
    }
    assert_eq!(places.len(), 8);
}

#[test]
fn requests_are_drawn_as_many_and_as_long_as_was_asked_for() {
    let length = Length::Uniform { from: 2, to: 9 };
    for arrivals in [
        "gamma: { rate: 500 /s, cv: 3, ",
        "weibull: { rate: 500 /s, shape: 0.5, ",
        "ramp: { from: 0 /s, to: 900 /s, over: 1 s, ",
    ] {
        let case = drawn(&format!("{{ {arrivals} batch: 8, limit: 40 }} }}"), length);
        let expected = requests(&case);
        assert_eq!(expected.len(), 40);
        assert!(expected.windows(2).all(|pair| pair[0].at <= pair[1].at && pair[0].at.is_some()));
        let (outcome, served) = serve(&case, "lru");
        let tally = outcome.orchestrator.tally();
        let tokens: u64 = expected.iter().map(|one| u64::from(one.tokens)).sum();
        assert_eq!((served.len(), tally.output_tokens), (40, tokens), "{arrivals}");
        assert!(served.iter().all(|one| (2..=9).contains(&one.tokens) && one.context == 3));
        assert_ne!(expected, requests(&Case { seed: 8, ..case }));
    }
}

#[test]
fn without_lengths_requests_are_those_of_the_routing() {
    let of = |requests: &str| {
        let case = Small { requests: requests.to_owned(), ..Small::default() }.case();
        assert_eq!(case.routing_followed(), "own");
        case.workload().unwrap().requests().iter().map(|one| one.tokens).collect::<Vec<_>>()
    };
    assert_eq!(of("{ gamma: { rate: 1 /s, cv: 2 } }"), [20, 20, 20]);
    assert_eq!(of("{ closed: { limit: 2 } }"), [20, 20]);
    assert_eq!(of("{ poisson: { rate: 1 /s, limit: 9 } }"), [20, 20, 20]);
}

#[test]
fn a_client_thinks_between_its_requests() {
    let case = |requests: &str| drawn(requests, Length::Fixed(2));
    let thinking = case("{ closed: { batch: 3, think: 50 ms, limit: 400 } }");
    let (_, requests) = serve(&thinking, "lru");
    assert_eq!(requests.len(), 400);
    // The next request in order is sent for the one that is finished; three were there from the beginning.
    let mut finished: Vec<Time> = requests.iter().map(|one| one.finished).collect();
    finished.sort_unstable();
    let waits: Vec<f64> = requests[3..]
        .iter()
        .zip(&finished)
        .map(|(one, end)| one.arrived.since(*end).as_millis_f64())
        .collect();
    let [mean, p50, ..] = figures(waits.into_iter());
    // Exponential: 400 draws have a mean within five standard errors, and their median at ln 2 of it.
    assert!(
        (mean / 50.0 - 1.0).abs() < 0.25 && (p50 / (50.0 * 2.0_f64.ln()) - 1.0).abs() < 0.35,
        "{mean}, {p50}"
    );
    // No more are under way than there are clients, and without thinking a client is never idle.
    assert!(!thinking.arrivals.is_closed());
    let busy = case("{ closed: { batch: 3, limit: 400 } }");
    assert!(busy.arrivals.is_closed());
    let (_, busy) = serve(&busy, "lru");
    let mut ends: Vec<Time> = busy.iter().map(|one| one.finished).collect();
    ends.sort_unstable();
    let mut starts: Vec<Time> = busy.iter().map(|one| one.arrived).collect();
    starts.sort_unstable();
    assert_eq!(starts[3..], ends[..397]);
}

/// Mean and the 50th, 90th and 99th percentiles.
fn figures(sample: impl Iterator<Item = f64>) -> [f64; 4] {
    let mut sorted: Vec<f64> = sample.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100) - 1];
    [sorted.iter().sum::<f64>() / sorted.len() as f64, at(50), at(90), at(99)]
}

/// Gaps in seconds, prompts and outputs of a shipped scenario.
fn load_of(scenario: &str) -> [[f64; 4]; 3] {
    let scenario = scenarios::load(scenario, &[], &check_policy).unwrap_or_else(|wrong| panic!("{wrong}"));
    let all = requests(&Case::from_scenario(&scenario).unwrap());
    let gap = |pair: &[Request]| pair[1].at.unwrap().since(pair[0].at.unwrap()).as_secs_f64();
    [
        figures(all.windows(2).map(gap)),
        figures(all.iter().map(|one| f64::from(one.context))),
        figures(all.iter().map(|one| f64::from(one.tokens))),
    ]
}

fn assert_close(found: [[f64; 4]; 3], expected: [[f64; 4]; 3], share: f64) {
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found / expected - 1.0).abs() < share, "{found}, expected {expected}");
    }
}

#[test]
fn generated_twins_are_as_close_to_the_recorded_load_as_they_say() {
    // What the comments of the scenarios say: of the twin, and of the trace.
    let conv = [[0.1808, 0.116, 0.433, 0.91], [1154.7, 943.0, 2131.0, 4142.0], [211.1, 186.0, 355.0, 601.0]];
    let code = [[0.3897, 0.055, 0.97, 5.1], [2047.8, 1665.0, 3797.0, 7436.0], [27.88, 12.0, 63.0, 252.0]];
    assert_close(load_of("azure-conv-generated"), conv, 0.05);
    // Fewer requests, and a longer tail.
    assert_close(load_of("azure-code-generated"), code, 0.15);
    if data().is_none() {
        return;
    }
    let conv = [[0.1808, 0.118, 0.421, 0.89], [1154.7, 1020.0, 2735.0, 4142.0], [211.1, 129.0, 424.0, 601.0]];
    let code = [[0.3897, 0.064, 0.273, 2.2], [2047.8, 1469.0, 5194.0, 7436.0], [27.88, 13.0, 55.0, 252.0]];
    assert_close(load_of("azure-conv-gpt-oss-20b"), conv, 0.005);
    assert_close(load_of("azure-code-gpt-oss-20b"), code, 0.005);
}

#[test]
fn shipped_loads_are_served() {
    for (scenario, requests) in [
        ("azure-conv-gpt-oss-20b", "azure_csv"),
        ("azure-code-gpt-oss-20b", "azure_csv"),
        ("azure-conv-generated", "gamma"),
        ("azure-code-generated", "weibull"),
    ] {
        if requests == "azure_csv" && data().is_none() {
            println!("skipped: {scenario}");
            continue;
        }
        let limit = format!("workload.requests.{requests}.limit=10");
        let output = hotset()
            .args(["simulate", scenario, "--set", &limit, "--format", "json"])
            .envs(data().map(|folder| ("HOTSET_DATA", folder)))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&summary["requests_completed"], &summary["routing"]),
            (&10.into(), &"stand_in".into()),
            "{scenario}"
        );
    }
}

#[test]
fn routing_is_generated_like_recorded_routing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recorded.hrt");
    let small = Params { layers: 2, experts: 8, top_k: 2, traces: 3, tokens_per_trace: 100, ..SAMPLE };
    traces::write(&path, &traces::generate(&small).unwrap()).unwrap();
    let text = format!(
        "name: fitted
machine: h100-sxm
model: {{ model_type: mixtral, hidden_size: 64, intermediate_size: 64, num_hidden_layers: 2, num_local_experts: 8,
  num_experts_per_tok: 2, num_attention_heads: 2, num_key_value_heads: 1, vocab_size: 512, torch_dtype: bfloat16 }}
memory: {{ hbm: 8 slots }}
workload: {{ routing: {{ fitted: {{ trace: {}, tokens: 350 }} }} }}
policy: lru
",
        path.display()
    );
    let mut library = Library::default();
    let mut case = |seed: u32| {
        let set = [("seed".to_owned(), seed.to_string())];
        let scenario = scenarios::load_text("fitted.yaml", &text, &set, &check_policy);
        library.case(&scenario.unwrap_or_else(|wrong| panic!("{wrong}"))).unwrap()
    };
    let (one, other) = (case(7), case(8));
    let tokens: Vec<u32> = requests(&one).iter().map(|one| one.tokens).collect();
    assert_eq!((tokens, one.fit.as_ref().unwrap().tokens()), (vec![100, 100, 100, 50], 300));
    let selections = |case: &Case| case.routing().unwrap().raw_selections().to_vec();
    assert_eq!(selections(&one), selections(&case(7)));
    assert_ne!(selections(&one), selections(&other));
}

#[test]
fn a_request_trace_is_measured_and_converted() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let line = |at: u32, hashes: &str| {
        format!(
            "{{\"timestamp\": {at}, \"input_length\": 1000, \"output_length\": 9, \"hash_ids\": [{hashes}]}}\n"
        )
    };
    std::fs::write(file("a.jsonl"), [line(0, "1, 2"), line(1000, "1, 3"), line(4000, "1, 2")].concat())
        .unwrap();
    let run = |args: &[&str]| {
        let output = hotset().args(["trace"]).args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, text) = run(&["info", &file("a.jsonl"), "--format", "json"]);
    let info: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!(
        (code, &info["requests"], &info["duration_s"], &info["gap_cv"]),
        (Some(0), &3.into(), &4.0.into(), &0.5.into())
    );
    // The first block of the second and all of the third, of 1000 tokens each.
    assert!((info["reusable_prefix"].as_f64().unwrap() - 1512.0 / 3000.0).abs() < 1e-12);
    let (code, text) = run(&["info", &file("a.jsonl")]);
    assert!(
        code == Some(0) && text.contains("prompt tokens seen before") && text.contains("50.40 %"),
        "{text}"
    );
    assert_eq!(run(&["convert", &file("a.jsonl"), "-o", &file("b.csv")]), (Some(0), String::new()));
    let converted = std::fs::read_to_string(file("b.csv")).unwrap();
    assert_eq!(
        converted,
        "arrival_ns,prompt_tokens,output_tokens\n0,1000,9\n1000000000,1000,9\n4000000000,1000,9\n"
    );
    let (code, text) = run(&["convert", &file("b.csv"), "-o", &file("c.hrt")]);
    assert!(code == Some(2) && text.contains("cannot write a request trace as '.hrt'"), "{text}");
}
