//! Statistics against traces whose answers are known by hand, and recorded ones.

use crate::real::recorded;
use traces::{Format, Options, RoutingTrace, info, open, parse};

fn read(text: &str, experts: u32) -> RoutingTrace {
    let options = Options { experts: Some(experts), ..Options::default() };
    parse(text.as_bytes(), Format::Csv, None, &options).unwrap()
}

#[test]
fn a_small_trace_measures_as_counted_by_hand() {
    // One layer of four experts; 0 is used four times, 1 twice, 2 twice, 3 never.
    let trace = read("token,layer,e0,e1,p0,p1\n0,0,0,1,3,1\n1,0,0,2,1,1\n2,0,2,0,1,3\n3,0,0,1,3,1\n", 4);
    let info = info(&trace, false).unwrap();
    assert_eq!((info.tokens, info.accesses, info.distinct_blocks), (4, 8, 3));
    assert_eq!(info.popularity.top_10_percent, 0.5);
    assert_eq!(info.popularity.top_50_percent, 0.75);
    // Shared with the token before: {0}, {2, 0}, {0} of two each.
    assert!((info.overlap_with_previous_token.unwrap() - 2.0 / 3.0).abs() < 1e-12);
    let blocks: Vec<_> = info.working_set.iter().map(|set| set.blocks).collect();
    assert_eq!(blocks, [Some(2.0), Some(3.0), None, None, None]);
    assert_eq!(info.mean_sorted_gates.unwrap(), [0.6875, 0.3125]);
}

#[test]
fn recorded_routing_uses_every_block_and_repeats_two_in_five() {
    let Some(path) = recorded("mmlu_validation.npz") else { return };
    let info = info(&open(path).unwrap(), false).unwrap();
    assert_eq!((info.traces, info.repetition_traces, info.tokens), (145, 47, 30_968));
    assert_eq!((info.accesses, info.distinct_blocks, info.blocks_per_token), (2_972_928, 768, 96.0));
    let overlap = info.overlap_with_previous_token.unwrap();
    assert!((0.4..0.5).contains(&overlap), "{overlap}");
    assert_eq!(info.gates, None);
}
