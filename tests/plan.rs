//! `hotset plan`: the least that meets a service objective, against looking at every point; and what it refuses.

use crate::{data, hotset};
use serde_json::Value;
use sim::plan::replica;
use sim::resolve::{Library, check_policy};
use snapbox::{assert_data_eq, file};
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A short run, and a grid that is searched by bisection.
const SHORT: [&str; 8] = [
    "plan",
    "quickstart",
    "--set",
    "workload.limit_tokens=40",
    "--vary",
    "hbm=96 slots..768 slots",
    "--step",
    "hbm=32 slots",
];

fn run(arguments: &[&str]) -> Output {
    hotset().args(arguments).envs(data().map(|folder| ("HOTSET_DATA", folder))).output().unwrap()
}

fn answer(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["--format", "json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What stands on stderr when the arguments are refused.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}: {errors}");
    errors
}

fn slots(point: &Value) -> u64 {
    point["set"]["hbm"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn bisection_agrees_with_looking_at_every_point() {
    let mut early = 0;
    for objective in ["tpot=22ms", "ttft=60ms"] {
        let short = [&SHORT[..], &["--seeds", "2", "--slo", objective]].concat();
        let found = answer(&short);
        let all = answer(&[&short[..], &["--exhaustive"]].concat());
        assert_eq!((&found["method"], &all["method"]), (&"bisection".into(), &"exhaustive".into()));
        assert_eq!((&all["evaluations"], &all["points"]), (&22.into(), &22.into()));
        assert!(found["evaluations"].as_u64().unwrap() <= 8, "{}", found["evaluations"]);
        assert_eq!((&found["best"], &found["feasible"]), (&all["best"], &true.into()), "{objective}");
        let (metric, limit) = objective.trim_end_matches("ms").split_once('=').unwrap();
        let limit: f64 = limit.parse().unwrap();
        // What was stopped is, run to its end, beyond what it was stopped at.
        let stopped = found["tried"].as_array().unwrap().iter().filter(|point| !point["stopped"].is_null());
        assert!(all["tried"].as_array().unwrap().iter().all(|point| point["stopped"].is_null()));
        for point in stopped {
            early += 1;
            let whole =
                all["tried"].as_array().unwrap().iter().find(|whole| whole["set"] == point["set"]).unwrap();
            assert!(whole[format!("{metric}_ms")]["ci95_high"].as_f64().unwrap() > 1.1 * limit, "{whole}");
            assert_eq!((&point["stopped"]["metric"], &point["feasible"]), (&metric.into(), &false.into()));
        }
        // By the runs themselves: the first that meets the objective is the answer, and all below it miss.
        let tried = all["tried"].as_array().unwrap();
        let first = tried.iter().find(|point| point["feasible"] == true).unwrap();
        let below = tried.iter().take_while(|point| point["feasible"] == false);
        assert_eq!(first, &all["best"]);
        assert_eq!(below.count() as u64, (slots(first) - 96) / 32);
        for point in tried {
            let high = point[format!("{metric}_ms")]["ci95_high"].as_f64().unwrap();
            assert_eq!(point["feasible"] == true, high <= limit, "{point}");
        }
    }
    assert!(early > 0, "none was stopped");
}

#[test]
fn one_more_machine_is_dearer_and_a_cheaper_one_is_taken_where_it_will_do() {
    let plan = |objective: &str| {
        answer(&[
            "plan",
            "quickstart",
            "--set",
            "workload.limit_tokens=40",
            "--set",
            "workload.requests={ closed: { batch: 4 } }",
            "--vary",
            "machine=h100-sxm,rtx-4090",
            "--vary",
            "count=1..2",
            "--vary",
            "hbm=8GiB..14GiB",
            "--step",
            "hbm=3GiB",
            "--seeds",
            "1",
            "--slo",
            objective,
        ])
    };
    let (slow, fast) = (plan("tpot=60ms"), plan("tpot=6ms"));
    let of =
        |plan: &Value| (plan["best"]["machine"].clone(), plan["best"]["cost_per_hour"].as_f64().unwrap());
    assert_eq!(of(&slow), ("rtx-4090".into(), 0.34));
    assert_eq!(fast["best"]["machine"], "h100-sxm");
    assert!(fast["best"]["price_source"].as_str().unwrap().contains("RunPod"));
    // Twice the machines is twice the price.
    for point in slow["tried"].as_array().unwrap() {
        let price = if point["machine"] == "rtx-4090" { 0.34 } else { 3.99 };
        let machines = point["machines"].as_f64().unwrap();
        assert!((point["cost_per_hour"].as_f64().unwrap() - price * machines).abs() < 1e-9);
    }
}

#[test]
fn a_machine_gets_every_so_many_th_request() {
    let load = |requests: &str| {
        let set = [("workload.requests".to_owned(), requests.to_owned())];
        let scenario = scenarios::load("scenarios/quickstart.yaml", &set, &check_policy);
        Library::default().case(&scenario.unwrap_or_else(|wrong| panic!("{wrong}"))).unwrap()
    };
    let times = |case: &sim::Case| {
        let workload = case.workload().unwrap();
        workload.requests().iter().map(|request| (request.at, request.tokens)).collect::<Vec<_>>()
    };
    let three = NonZero::new(3).unwrap();
    let drawn = load("{ poisson: { rate: 4 /s } }");
    let every = times(&drawn).into_iter().step_by(3).collect::<Vec<_>>();
    assert_eq!(times(&replica(&drawn, three).unwrap()), every);
    assert_eq!(times(&replica(&drawn, NonZero::<u32>::MIN).unwrap()), times(&drawn));
    // Clients that wait for their own requests are shared out.
    let closed = replica(&load("{ closed: { batch: 7 } }"), three).unwrap();
    assert_eq!(closed.max_batch, 3);
}

#[test]
fn what_more_memory_buys_is_told_of_a_tier_that_is_full() {
    let full = ["--set", "workload.limit_tokens=20", "--vary", "machine=epyc-2core-vm"];
    let plan =
        answer(&[&["plan", "quickstart", "--slo", "tpot=9s", "--minimize", "memory"], &full[..]].concat());
    assert_eq!(plan["feasible"], true);
    let memory =
        plan["sensitivity"].as_array().unwrap().iter().find(|gain| gain["resource"] == "memory").unwrap();
    assert!(memory["latency_change"].as_f64().unwrap() < 0.0, "{memory}");
}

#[test]
fn what_cannot_be_met_says_how_near_it_comes_and_why() {
    let plan = answer(&[&SHORT[..], &["--seeds", "1", "--slo", "tpot=1us"]].concat());
    assert_eq!((&plan["feasible"], &plan["best"]), (&false.into(), &Value::Null));
    // The neighbours of the nearest may have been stopped.
    let latency = |point: &Value| point["tpot_ms"]["mean"].as_f64();
    let least = plan["tried"].as_array().unwrap().iter().filter_map(latency).fold(f64::INFINITY, f64::min);
    assert_eq!(latency(&plan["nearest"]), Some(least));
    assert_eq!(
        plan["binding"]["resource"], "link",
        "so few tokens are served from blocks that have to come first"
    );
    let unlimited = plan["unlimited"].as_array().unwrap();
    assert!(unlimited.iter().all(|gain| gain["latency_ms"]["mean"].as_f64().unwrap() > 1e-3));
    let table = run(&[&SHORT[..], &["--seeds", "1", "--slo", "tpot=1us"]].concat());
    assert!(
        table.status.success() && String::from_utf8_lossy(&table.stdout).contains("Nothing meets TPOT p99")
    );
}

/// The keys of a value, each with the kind of what it holds; of a list, those of its first item.
fn shape(path: &str, value: &Value, lines: &mut Vec<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            if let Some(first) = items.first() {
                shape(&format!("{path}[]"), first, lines);
            }
            "list"
        }
        Value::Object(entries) if entries.contains_key("ci95_low") => "estimate",
        Value::Object(entries) => {
            entries.iter().for_each(|(key, value)| shape(&format!("{path}.{key}"), value, lines));
            return;
        }
    };
    lines.push(format!("{path}: {kind}"));
}

#[test]
fn the_record_has_the_keys_of_the_contract() {
    let plan = answer(&[&SHORT[..], &["--seeds", "2", "--slo", "tpot=22ms"]].concat());
    for key in ["feasible", "best", "binding", "pareto", "sensitivity", "evaluations"] {
        assert!(!plan[key].is_null(), "{key}");
    }
    let mut lines = Vec::new();
    shape("", &plan, &mut lines);
    lines.push(String::new());
    assert_data_eq!(lines.join("\n"), file!["snapshots/plan-keys.txt"].raw());
}

#[test]
fn the_same_answer_on_any_number_of_threads() {
    let json = |jobs: &str| {
        let output = run(&[&SHORT[..], &["--slo", "tpot=22ms", "--jobs", jobs, "--format", "json"]].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(json("1"), json("3"));
}

#[test]
fn a_plan_that_makes_no_sense_is_refused() {
    let wrong = |more: &[&str]| refused(&[&["plan", "quickstart"], more].concat());
    let says = |more: &[&str], words: &[&str]| {
        let errors = wrong(&[more, &["--slo", "tpot=50ms"]].concat());
        assert!(words.iter().all(|word| errors.contains(word)), "{more:?}: {errors}");
    };
    assert!(wrong(&["--vary", "hbm=8GiB..24GiB"]).contains("give --slo tpot=50ms"));
    assert!(wrong(&["--slo", "tpot=50ms"]).contains("--vary"));
    says(&["--vary", "hbm=80GiB..16GiB"], &["range 80GiB..16GiB is empty", "write 16GiB..80GiB"]);
    says(&["--vary", "hbm=16GiB..80"], &["different kinds"]);
    says(&["--vary", "hbm=16ms..80ms"], &["memory.hbm", "`ms` is no unit of a size"]);
    says(&["--vary", "hbm=8GiB.."], &["memory.hbm"]);
    says(&["--vary", "hbm=,"], &["no value 1"]);
    says(&["--vary", "hbm"], &["PATH=VALUE"]);
    says(&["--vary", "hbmm=1GiB..2GiB"], &["memory.hbmm", "hbm"]);
    says(&["--vary", "x.y=1,2"], &["unknown key `x`"]);
    says(&["--vary", "count=0..3"], &["`0` is no number of machines"]);
    says(&["--vary", "count=1GiB..3GiB"], &["no number of machines"]);
    says(&["--vary", "policy=lru,lruu"], &["lruu", "did you mean `lru`?"]);
    says(&["--vary", "machine=h100-sxm,h100-smx"], &["no machine called `h100-smx`", "h100-sxm"]);
    says(&["--vary", "hbm=1MiB..2MiB"], &["memory.hbm", "cannot hold"]);
    says(&["--vary", "hbm=8GiB,9GiB", "--vary", "memory.hbm=4GiB"], &["`hbm` is varied already"]);
    says(&["--vary", "hbm=8GiB..9GiB", "--step", "dram=1GiB"], &["nothing called `dram` varies"]);
    says(&["--vary", "hbm=8GiB,9GiB", "--step", "hbm=1GiB"], &["has no range"]);
    says(&["--vary", "hbm=8GiB..9GiB", "--step", "hbm=0B"], &["goes nowhere"]);
    says(&["--vary", "hbm=1B..9GiB", "--step", "hbm=1B"], &["at most 4096"]);
    says(&["--vary", "machine=h100-sxm,gh200"], &["gh200 has no price", "--minimize memory"]);
    let objective = |slo: &str| wrong(&["--vary", "hbm=8GiB..9GiB", "--slo", slo]);
    assert!(objective("tpot=5").contains("slo.tpot: `5` has no unit"));
    assert!(objective("tpott=5ms").contains("unknown key `tpott`"));
    assert!(objective("percentile=100").contains("is no percentile"));
    assert!(objective("percentile=99").contains("no objective"));
    says(&["--vary", "seed=1..4096", "--vary", "count=1..64", "--exhaustive"], &["too many to run all"]);
}

/// Runs a command with `--resume`, interrupts it when some runs are kept, and answers with its exit code and what it said.
fn interrupted(arguments: &[&str], journal: &Path) -> (Option<i32>, String) {
    let mut command = hotset();
    command.args(arguments).args(["--resume"]).arg(journal).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let lines =
        || std::fs::read(journal).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count());
    // Ten minutes, where something is wrong.
    for _ in 0..60_000 {
        if lines() >= 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[cfg(unix)]
#[test]
fn an_interrupted_command_leaves_whole_files_and_goes_on_to_the_same_answer() {
    let tune = [
        "tune",
        "quickstart",
        "--validate-set",
        "workload.routing={ trace: traces/samples/vllm-responses.jsonl }",
    ];
    let compare = ["compare", "quickstart", "--policies", "lru,lfu"];
    let limit = ["--set", "workload.limit_tokens=80", "--jobs", "1"];
    let commands = [
        [&["plan"], &SHORT[1..2], &SHORT[4..], &limit, &["--slo", "tpot=15ms"]].concat(),
        [&compare[..], &limit, &["--seeds", "10"]].concat(),
        [&tune[..], &limit, &["--evaluations", "16"]].concat(),
    ];
    for command in commands {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("runs.jsonl");
        // What is written at the end is not there, nor a part of it.
        let out = folder.path().join("out.csv").display().to_string();
        let out = if command[0] == "plan" { vec![] } else { vec!["--out", out.as_str()] };
        let (code, said) = interrupted(&[&command[..], &out].concat(), &journal);
        assert_eq!(code, Some(130), "{command:?}: {said}");
        assert!(said.contains("the same command goes on from there"), "{said}");
        let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, std::slice::from_ref(&journal), "{command:?}");
        let kept = std::fs::read(&journal).unwrap();
        let json = ["--format", "json"];
        let whole = run(&[&command[..], &json].concat());
        let resume = ["--resume", journal.to_str().unwrap()];
        let resumed = run(&[&command[..], &resume, &json].concat());
        assert!(whole.status.success() && whole.stdout == resumed.stdout, "{command:?}");
        let all = std::fs::read(&journal).unwrap();
        let whole_lines = kept.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        assert!(all.starts_with(&kept[..whole_lines]) && all.len() > kept.len(), "what was finished is kept");
    }
}

#[test]
fn the_stated_case_is_planned() {
    if data().is_none() {
        return;
    }
    let plan = answer(&[
        "plan",
        "azure-code-gpt-oss-120b",
        "--set",
        "workload.requests.azure_csv.limit=8",
        "--vary",
        "hbm=52GiB..76GiB",
        "--step",
        "hbm=12GiB",
        "--seeds",
        "1",
    ]);
    let tried = plan["tried"].as_array().unwrap();
    assert_eq!(tried.len(), 3);
    let latency = |point: &Value| point["tpot_ms"]["mean"].as_f64().unwrap_or(f64::INFINITY);
    assert!(
        tried.windows(2).all(|pair| latency(&pair[1]) <= latency(&pair[0])),
        "more memory is never slower here"
    );
    assert_eq!(plan["binding"]["metric"], "tpot");
    assert!(plan["binding"]["resource"].is_string());
}
