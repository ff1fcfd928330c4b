//! Whatever is wrong with the input, the command says what and where, and exits with 2.

use crate::{ROOT, hotset};
use std::io::Write;
use std::path::Path;
use std::process::Output;
use zip::write::SimpleFileOptions;

/// Asserts that the input was refused: exit 2, nothing on stdout, and an error that says all of `texts`.
fn refused(output: &Output, texts: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(output.stdout.is_empty());
    assert!(errors.starts_with("error: ") && !errors.contains("panicked"), "{errors}");
    for text in texts {
        assert!(errors.contains(text), "`{text}` is not in: {errors}");
    }
}

fn npy(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

/// Three tokens of two layers that select two experts.
fn npz(dtype: &str, experts: &[u8]) -> Vec<u8> {
    let offsets = [0i64, 3].map(i64::to_le_bytes).concat();
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let entries =
        [("experts.npy", npy(dtype, "(3, 2, 2)", experts)), ("offsets.npy", npy("<i8", "(2,)", &offsets))];
    for (name, bytes) in entries {
        archive.start_file(name, SimpleFileOptions::default()).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

const EXPERTS: [u8; 12] = [0, 1, 2, 3, 1, 2, 3, 0, 0, 200, 1, 3];
const LINE: &str = "{\"layer_idx\": 0, \"token_idx\": 0, \"selected_ids\": [3, 1]}\n";

/// A bad file: its name, its bytes, and what the error has to say.
fn bad_files() -> Vec<(&'static str, Vec<u8>, [&'static str; 2])> {
    let good = npz("|u1", &EXPERTS);
    let sample = std::fs::read(Path::new(ROOT).join("traces/sample.hrt")).unwrap();
    let flipped = |at: usize| {
        let mut bytes = sample.clone();
        bytes[at] ^= 1;
        bytes
    };
    let repeated = LINE.replace("}", ", \"repetition\": true}");
    vec![
        (
            "truncated.npz",
            good[..good.len() / 2].to_vec(),
            ["damaged archive", "hint: the file is truncated"],
        ),
        ("dtype.npz", npz("<f4", &[EXPERTS; 4].concat()), ["experts.npy", "elements of type '<f4'"]),
        ("range.npz", good, ["token row 2, layer 0", "expert 200 is out of range"]),
        ("empty.jsonl", Vec::new(), ["empty.jsonl", "no token in it"]),
        ("blank.csv", b"token,layer,e0\n".to_vec(), ["blank.csv", "no token in it"]),
        (
            "cut.jsonl",
            format!("{LINE}{}", &LINE[..40]).into(),
            ["line 2, column 40", "hint: the line was cut"],
        ),
        ("cell.csv", b"token,layer,e0\n0,0,x\n".to_vec(), ["line 2", "column 'e0': 'x'"]),
        ("short.hrt", sample[..sample.len() - 1].to_vec(), ["bytes declared", "hint: the file is truncated"]),
        ("flipped.hrt", flipped(sample.len() - 1), ["checksum", "hint"]),
        ("notes.txt", b"hello".to_vec(), ["not a routing trace", "hint: formats that can be read"]),
        ("again.jsonl", repeated.into(), ["repetition", "hint: include repetitions"]),
    ]
}

#[test]
fn a_bad_trace_is_refused_by_every_command_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, texts) in bad_files() {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let run = |arguments: &[&str]| {
            let mut command = hotset();
            command.args(arguments).arg(&path);
            if name == "range.npz" {
                command.args(["--experts", "4"]);
            }
            command.output().unwrap()
        };
        refused(&run(&["replay"]), &texts);
        refused(&run(&["trace", "info"]), &texts);
        if name != "again.jsonl" {
            let fit = run(&["replay", "traces/sample.hrt", "--fit"]);
            refused(&fit, &texts[..if name == "range.npz" { 0 } else { 2 }]);
            assert!(String::from_utf8_lossy(&fit.stderr).contains(if name == "range.npz" {
                "sample.hrt"
            } else {
                name
            }));
            let target = folder.path().join("out.hrt");
            refused(&run(&["trace", "convert", "-o", target.to_str().unwrap()]), &texts);
            assert!(!target.exists());
        }
    }
}

#[test]
fn an_error_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.csv");
    std::fs::write(&other, "token,layer,e0\n0,0,1\n").unwrap();
    let other = other.to_str().unwrap();
    let output = |arguments: &[&str]| hotset().args(arguments).output().unwrap();
    refused(&output(&["replay", "absent.hrt"]), &["absent.hrt", "No such file"]);
    refused(&output(&["replay", "traces"]), &["traces", "directory"]);
    refused(&output(&["replay", "traces/sample.hrt", other]), &["other.csv", "the first one has 24 layers"]);
    refused(
        &output(&["replay", "traces/sample.hrt", "--policies", "static", "--fit", other]),
        &["2 blocks", "768", "a trace of the same model"],
    );
}

#[test]
fn bad_arguments_are_refused() {
    let cases: &[(&str, &[&str])] = &[
        ("--policies beladi", &["unknown policy `beladi`", "did you mean `belady`?"]),
        ("--policies hobbit", &["hobbit cannot be replayed"]),
        ("--policies static", &["--fit"]),
        ("--slots 0", &["0 is not in 1.."]),
        ("--slots -5", &["-5 is not in 1.."]),
        ("--slots 96 --capacity 1GiB --block-bytes 1", &["cannot be used with"]),
        ("--capacity 1GiB", &["--model", "--block-bytes"]),
        ("--capacity -1GiB --block-bytes 1", &["`-1GiB` is not a size"]),
        ("--capacity 80G --block-bytes 1", &["`80G` is not a size"]),
        ("--capacity 1KiB --block-bytes 4096", &["holds no block of 4.00 KiB"]),
        ("--model mixtral-8x7b", &["256 blocks", "768"]),
        ("--model no-such-model", &["no-such-model", "gpt-oss-20b"]),
        ("--params lru", &["POLICY.NAME=VALUE"]),
        ("--params lru.age=x", &["`x` is not a number"]),
        ("--params lru.age=1", &["lru has no parameter `age`"]),
        ("--params hobbit.ahead=1", &["hobbit is not replayed"]),
        ("--threads 0", &["0 is not in 1..=1024"]),
        ("--experts 8", &["sample.hrt", "32 experts", "8 were asked for"]),
    ];
    for (arguments, texts) in cases {
        let output =
            hotset().args(["replay", "traces/sample.hrt"]).args(arguments.split(' ')).output().unwrap();
        refused(&output, texts);
    }
}

#[test]
fn a_generator_out_of_range_is_refused_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("made.hrt");
    for (arguments, text) in [
        ("--skew -1", "skew is -1"),
        ("--top-k 33", "top 33"),
        ("--tokens 0", "tokens_per_trace is 0"),
        ("--layers 65535 --experts 65535", "experts over all layers"),
    ] {
        let output = hotset()
            .args(["trace", "generate", "-o"])
            .arg(&target)
            .args(arguments.split(' '))
            .output()
            .unwrap();
        refused(&output, &[text]);
        assert!(!target.exists());
    }
    let output = hotset().args(["trace", "generate", "-o", "made.npz"]).output().unwrap();
    refused(&output, &["cannot write a trace as '.npz'", "hint: formats that can be written"]);
}

#[test]
fn every_error_of_a_scenario_is_reported_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.yaml");
    let text = "name: x\nmachine: rtx-4090\nmodel: gpt-oss-20b\nmemory: { hbm: 6 }\ncolour: red\n\
                workload:\n  routing: { trace: absent.hrt }\npolicy: beladi\n";
    std::fs::write(&path, text).unwrap();
    let places = ["bad.yaml:4:16", "bad.yaml:5:1", "bad.yaml:7:21", "bad.yaml:8:9"];
    for command in ["check", "simulate", "compare"] {
        let output = hotset().arg(command).arg(&path).output().unwrap();
        refused(&output, &places);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("error: error"));
    }
    let both = hotset().args(["check", "no-such-one", "quickstart"]).arg(&path).output().unwrap();
    let errors = String::from_utf8_lossy(&both.stderr);
    assert!(errors.contains("no-such-one") && errors.contains(places[3]), "{errors}");
    assert!(String::from_utf8_lossy(&both.stdout).contains("quickstart") && both.status.code() == Some(2));
    std::fs::write(&path, "name: x\nmemory:\n\thbm: 6 GiB\n").unwrap();
    refused(
        &hotset().arg("check").arg(&path).output().unwrap(),
        &["bad.yaml:3:1", "tabs disallowed", "indent with spaces"],
    );
}

/// Runs `hotset` on the quickstart scenario with values set in it.
fn quickstart(command: &str, more: &[&str], values: &[&str]) -> Output {
    let mut hotset = hotset();
    hotset.args([command, "quickstart"]).args(more);
    for value in values {
        hotset.args(["--set", value]);
    }
    hotset.output().unwrap()
}

#[test]
fn a_scenario_that_cannot_run_says_what_to_change() {
    let late = "workload.requests={poisson: {rate: 4 /s}}";
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("policy=static", &[], &["policy `static`", "workload.fit"]),
        ("policy=belady", &[late], &["policy `belady`", "closed"]),
        ("home=hbm", &[], &["the fast tier is no home"]),
        ("load.from=nvme", &["memory.nvme=1 GiB"], &["load.from", "more than nvme has"]),
        ("schedule.chunk=1 KiB", &[], &["schedule.chunk", "at least 4.00 KiB"]),
        ("resident.activations=24 GiB", &[], &["hbm has 24.00 GiB"]),
        ("workload.routing={dense: {}}", &[], &["the model routes tokens to experts", "zipf_markov"]),
        ("machine.accelerator.read=2 TB/s", &[], &["kernels read 2000.0 GB/s", "tiers.hbm.read"]),
        ("workload.routing.trace[1]=b.hrt", &[], &["its items are 0 to 0"]),
        ("machine.base=h100-sxm", &[], &["`base` cannot be set", "--set machine=NAME"]),
        ("memory.dram=1 B", &["memory.nvme=1 B"], &["the home copies", "more than"]),
        ("model.num_hidden_layers=", &[], &["num_hidden_layers: no value"]),
        ("model.num_hidden_layers=~", &[], &["`num_hidden_layers` is missing"]),
        ("model.model_type=''", &[], &["model_type: no value"]),
        (
            "host_compute=true",
            &["machine=h200"],
            &["host_compute", "h200 does not say how its host computes"],
        ),
        ("workload.lookahead=[120 %]", &[], &["workload.lookahead", "120 %"]),
        ("policy={script: nope.rhai}", &[], &["policy.script", "no file at nope.rhai"]),
        ("policy={lru: README.md}", &[], &["`lru` runs no script"]),
        ("policy={script: README.md}", &[], &["README.md:1:1", "hotset policies --script"]),
        ("policy=script", &[], &["runs a script, and none is named"]),
        (
            "workload.routing={zipf_markov: {tokens: 4294967295}}",
            &[],
            &["workload.routing.zipf_markov", "more than the limit"],
        ),
    ];
    for (value, others, texts) in cases {
        refused(&quickstart("simulate", &[], &[others, &[*value][..]].concat()), texts);
    }
    let folder = tempfile::tempdir().unwrap();
    let words = folder.path().join("words.json");
    std::fs::write(&words, "no keys here\n").unwrap();
    let model = format!("model={}", words.display());
    refused(&quickstart("simulate", &[], &[&model]), &["words.json:1:1", "a model file has keys and values"]);
    refused(&quickstart("simulate", &["--sweep", "seed=,"], &[]), &["--sweep seed=", "no value 1"]);
    refused(&quickstart("simulate", &["--sweep", "seed=1,,2"], &[]), &["--sweep seed=", "no value 2"]);
    refused(
        &quickstart("simulate", &["--sweep", "encoded=int4_g128,[int4_g128, int9]"], &[]),
        &["--set encoded:1:21", "`int9` is no format"],
    );
    refused(&quickstart("compare", &["--jobs", "100000"], &[]), &["0..=1024"]);
    refused(
        &quickstart("compare", &["--seeds", "2"], &["seed=18446744073709551615"]),
        &["leaves no room for 2 seeds"],
    );
    let compared = quickstart("compare", &[], &[late, "workload.limit_tokens=2"]);
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stderr));
    assert!(!String::from_utf8_lossy(&compared.stdout).contains("belady"));
}

#[test]
fn a_base_that_leads_back_is_refused_with_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let first = file("first.yaml", "base: second.yaml\nname: one\n");
    std::fs::create_dir(folder.path().join("third")).unwrap();
    file("second.yaml", "base: third/../first.yaml\n");
    let output = hotset().arg("check").arg(&first).output().unwrap();
    refused(&output, &["a file that starts from itself", "first.yaml -> ", "second.yaml:1:7"]);
}

#[test]
fn more_kinds_of_copy_than_a_run_can_have_are_refused() {
    let tier = |n| {
        format!(
            "machine.tiers.t{n}={{class: staged, backing: pinned, capacity: 1 GiB, read: 1 TB/s, write: 1 TB/s}}"
        )
    };
    let rates = "forward: 1 GB/s, backward: 1 GB/s";
    let link = |n| {
        format!(
            "machine.links.l{n}={{between: [t{n}, hbm], {rates}, latency: 1 us, submit: 1 us, half_size: 0 B, \
             engines: 1, duplex: {{{rates}}}}}"
        )
    };
    let values: Vec<String> = (0..62).flat_map(|n| [tier(n), link(n)]).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    refused(&quickstart("check", &[], &values), &["tiers: 65 of them", "at most 63"]);
    // With the three it has, 33 tiers of two formats.
    let two = [&["encoded=int4_g128"][..], &values[..60]].concat();
    refused(&quickstart("check", &[], &two), &["66 kinds of copy", "at most 64"]);
    assert!(quickstart("check", &[], &two[..two.len() - 2]).status.success());
}

#[test]
fn a_run_that_would_outlast_the_clock_fails() {
    let endless = [
        &["machine.links.pcie.latency=1000000000000000000 ns"][..],
        &["machine.links.pcie.submit=1000000000000000000 ns"],
        &["machine.links.pcie.half_size=16777215 TiB"],
        &["machine.accelerator.launch=1000000000000000000 ns"],
        &["machine.accelerator.read=1 B/s"],
        &[
            "machine.links.pcie.duplex={forward: 1 B/s, backward: 1 B/s}",
            "machine.links.pcie.forward=1 B/s",
            "machine.links.pcie.backward=1 B/s",
        ],
    ];
    for values in endless {
        let output = quickstart("simulate", &[], values);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{values:?}: {errors}");
        assert!(errors.contains("292 years of simulated time"), "{errors}");
        assert!(output.stdout.is_empty());
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.hrt");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    refused(&hotset().arg("replay").arg(&pipe).output().unwrap(), &["pipe.hrt", "not a file"]);
    refused(&hotset().args(["replay", "/dev/zero"]).output().unwrap(), &["/dev/zero", "not a file"]);
    let npz_path = folder.path().join("pipe.npz");
    std::fs::write(&npz_path, npz("|u1", &EXPERTS)).unwrap();
    std::fs::rename(&pipe, folder.path().join("pipe.meta.json")).unwrap();
    refused(&hotset().arg("replay").arg(&npz_path).output().unwrap(), &["pipe.meta.json", "not a file"]);
}

#[cfg(target_os = "linux")]
#[test]
fn an_error_that_cannot_be_printed_still_has_its_exit_code() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = hotset().args(["check", "no-such-scenario"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_folder_where_an_output_file_goes_is_refused_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("requests.csv")).unwrap();
    let output = hotset().args(["simulate", "quickstart", "--out"]).arg(folder.path()).output().unwrap();
    refused(&output, &["requests.csv: cannot be written", "a folder has this name"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was written");
}
