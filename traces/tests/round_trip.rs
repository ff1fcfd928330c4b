//! What is written is what is read, in every format.

use half::f16;
use proptest::prelude::*;
use std::fmt::Write as _;
use traces::hrt::{self, GateWidth};
use traces::{
    Format, GateOrigin, Gates, Options, PADDING, RoutingTrace, Shape, TraceInfo, open, parse, write,
};

/// Any valid trace: shorter selections, gates or not, ids below and above 255, one or more requests.
pub(crate) fn any_trace() -> impl Strategy<Value = RoutingTrace> {
    let shape = (1_u32..4, prop_oneof![1_u32..9, 250_u32..300]).prop_flat_map(|(layers, experts)| {
        (1..=experts.min(5)).prop_map(move |top_k| Shape { layers, experts, top_k })
    });
    (
        shape,
        prop::collection::vec((1_usize..4, any::<bool>(), any::<Option<u32>>()), 1..4),
        any::<Option<bool>>(),
    )
        .prop_flat_map(|(shape, requests, gates)| {
            let tokens: usize = requests.iter().map(|(rows, ..)| rows).sum();
            let ids: Vec<u16> = (0..shape.experts as u16).collect();
            let selection = prop::sample::subsequence(ids, 1..=shape.top_k as usize).prop_shuffle();
            let selections = prop::collection::vec(selection, tokens * shape.layers as usize);
            let weights = prop::collection::vec(0.001_f32..2.0, tokens * shape.places());
            (Just(shape), Just(requests), selections, weights, Just(gates))
        })
        .prop_map(|(shape, requests, selections, weights, gates)| {
            build(shape, &requests, &selections, weights, gates)
        })
}

fn build(
    shape: Shape,
    requests: &[(usize, bool, Option<u32>)],
    selections: &[Vec<u16>],
    mut weights: Vec<f32>,
    gates: Option<bool>,
) -> RoutingTrace {
    let mut ids = vec![PADDING; weights.len()];
    let top_k = shape.top_k as usize;
    for (index, selection) in selections.iter().enumerate() {
        ids[index * top_k..][..selection.len()].copy_from_slice(selection);
        weights[index * top_k..][selection.len()..top_k].fill(0.0);
    }
    let mut next = 0;
    let mut traces = Vec::new();
    for (index, &(rows, repetition, prompt_tokens)) in requests.iter().enumerate() {
        let prompt_rows = prompt_tokens.map_or(0, |tokens| (rows / 2).min(tokens as usize));
        traces.push(TraceInfo {
            rows: next + prompt_rows..next + rows,
            prompt_rows,
            name: format!("prompt \"{index}\""),
            dataset: repetition.then(|| "set".to_owned()),
            request_id: Some(format!("r{index}")),
            repetition,
            prompt_tokens,
        });
        next += rows;
    }
    let origin = |synthetic| if synthetic { GateOrigin::Synthetic } else { GateOrigin::Trace };
    let gates = gates.map(|synthetic| Gates { weights, origin: origin(synthetic) });
    RoutingTrace::new(shape, ids, gates, traces).unwrap()
}

/// `top_k` and layers are not stored in text: they are those of the rows.
fn full_width(trace: &RoutingTrace) -> bool {
    trace.raw_selections().chunks(trace.shape().top_k as usize).any(|places| !places.contains(&PADDING))
}

proptest! {
    #[test]
    fn hrt_keeps_everything(trace in any_trace()) {
        let bytes = hrt::encode(&trace, GateWidth::F32).unwrap();
        prop_assert_eq!(hrt::decode(&bytes).unwrap(), trace);
    }

    #[test]
    fn hrt_in_16_bits_keeps_what_16_bits_hold(trace in any_trace()) {
        let once = hrt::decode(&hrt::encode(&trace, GateWidth::F16).unwrap()).unwrap();
        prop_assert_eq!(GateWidth::exact(&once), GateWidth::F16);
        let twice = hrt::decode(&hrt::encode(&once, GateWidth::F16).unwrap()).unwrap();
        prop_assert_eq!(&once, &twice);
        for (short, exact) in once.raw_gates().unwrap_or_default().iter().zip(trace.raw_gates().unwrap_or_default()) {
            prop_assert_eq!(*short, f16::from_f32(*exact).to_f32());
        }
    }

    #[test]
    fn json_lines_keep_everything(trace in any_trace().prop_filter("full width", full_width)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.jsonl");
        write(&path, &trace).unwrap();
        prop_assert_eq!(open(&path).unwrap(), trace);
    }

    #[test]
    fn csv_says_the_same(trace in any_trace().prop_filter("full width", full_width)) {
        let options = Options { experts: Some(trace.shape().experts), ..Options::default() };
        let read = parse(csv(&trace).as_bytes(), Format::Csv, None, &options).unwrap();
        prop_assert_eq!(read.raw_selections(), trace.raw_selections());
        prop_assert_eq!(read.raw_gates(), trace.raw_gates());
        let rows = |trace: &RoutingTrace| trace.traces().iter().map(|info| info.prompt().start..info.rows.end).collect::<Vec<_>>();
        prop_assert_eq!(rows(&read), rows(&trace));
    }

    #[test]
    fn concatenation_is_one_after_the_other(trace in any_trace()) {
        let twice = RoutingTrace::concat(vec![trace.clone(), trace.clone()]).unwrap();
        prop_assert_eq!(twice.tokens(), 2 * trace.tokens());
        let (ids, all) = (trace.demands(true), twice.demands(true));
        prop_assert_eq!(all.ids(), [ids.ids(), ids.ids()].concat());
        if let Ok(kept) = twice.without_repetition() {
            prop_assert_eq!(kept.demands(true), twice.demands(false));
            prop_assert!(kept.traces().iter().all(|info| !info.repetition));
        }
    }

    #[test]
    fn changed_bytes_never_panic(
        trace in any_trace(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = hrt::encode(&trace, GateWidth::F32).unwrap();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes.truncate(length.index(bytes.len() + 1));
        reseal(&mut bytes);
        if let Ok(read) = hrt::decode(&bytes) {
            let again = hrt::encode(&read, GateWidth::F32).unwrap();
            prop_assert_eq!(hrt::decode(&again).unwrap(), read);
        }
    }
}

/// Makes the checksums right again, so that what lies behind them is tested.
fn reseal(bytes: &mut [u8]) {
    if bytes.len() < 192 {
        return;
    }
    for entry in [48, 72, 96, 120] {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let (from, len) = (number(entry), number(entry + 8));
        if let Some(section) = from.checked_add(len).and_then(|to| bytes.get(from..to)) {
            let crc = crc32fast::hash(section).to_le_bytes();
            bytes[entry + 16..entry + 20].copy_from_slice(&crc);
        }
    }
    let crc = crc32fast::hash(&bytes[..188]).to_le_bytes();
    bytes[188..192].copy_from_slice(&crc);
}

fn csv(trace: &RoutingTrace) -> String {
    let top_k = trace.shape().top_k as usize;
    let columns = |prefix: &str| (0..top_k).map(|k| format!(",{prefix}{k}")).collect::<String>();
    let has_gates = trace.gate_origin().is_some();
    let gate_columns = if has_gates { columns("p") } else { String::new() };
    let mut text = format!("request_id,token,layer{}{gate_columns}\n", columns("e"));
    for (request, info) in trace.traces().iter().enumerate() {
        for (token, row) in (info.prompt().start..info.rows.end).enumerate() {
            for layer in 0..trace.shape().layers as usize {
                write!(text, "{request},{token},{layer}").unwrap();
                let ids = trace.selection(row, layer);
                (0..top_k).for_each(|k| write!(text, ",{}", cell(ids.get(k))).unwrap());
                if let Some(gates) = trace.gates(row, layer) {
                    (0..top_k).for_each(|k| write!(text, ",{}", cell(gates.get(k))).unwrap());
                }
                text.push('\n');
            }
        }
    }
    text
}

fn cell(number: Option<&impl ToString>) -> String {
    number.map(ToString::to_string).unwrap_or_default()
}

#[test]
fn an_export_has_the_permissions_of_a_new_file_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let trace =
        traces::generate(&traces::generate::Params { tokens_per_trace: 1, ..traces::generate::SAMPLE })
            .unwrap();
    let path = folder.path().join("trace.hrt");
    write(&path, &trace).unwrap();
    write(&path, &trace).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let permissions = |path| std::fs::metadata(path).unwrap().permissions();
    assert_eq!(permissions(&path), permissions(&plain));
    assert_eq!(open(&path).unwrap(), trace);
}

/// The fuzzer's seed was written from the documented layout by another program, after a byte for the fuzzer.
#[test]
fn an_hrt_file_written_from_the_documentation_alone_is_read() {
    let trace = hrt::decode(&include_bytes!("../../fuzz/corpus/traces/hrt")[1..]).unwrap();
    assert_eq!(trace.shape(), Shape { layers: 1, experts: 4, top_k: 2 });
    assert_eq!((trace.selection(0, 0), trace.selection(1, 0)), (&[3, 1][..], &[2][..]));
    assert_eq!((trace.gates(0, 0), trace.gates(1, 0)), (Some(&[0.6, 0.4][..]), Some(&[1.0][..])));
    let info = TraceInfo {
        rows: 0..2,
        name: "a".into(),
        repetition: true,
        prompt_tokens: Some(9),
        ..TraceInfo::default()
    };
    assert_eq!(trace.traces(), [info]);
}
