//! Replays of recorded routing against published hit rates, every cell.

use crate::data;
use policy::Demands;
use policy::registry::lookup;
use policy::replay::{Order, ReplayInput, Reset};
use rayon::prelude::*;
use std::path::Path;
use traces::RoutingTrace;

/// The rates of one published table: its columns under our names.
struct Table {
    file: &'static str,
    order: Order,
    decimals: usize,
    columns: &'static [(&'static str, &'static str)],
    cells: usize,
}

const ACCESS: Table = Table {
    file: "reference/gpt_oss_20b_replay.csv",
    order: Order::Access,
    decimals: 5,
    columns: &[
        ("lru", "lru"),
        ("lfu_persistent", "lfu"),
        ("static_top_from_mmlu_dev", "static"),
        ("belady", "belady"),
    ],
    cells: 64,
};

const ATOMIC: Table = Table {
    file: "reference/gpt_oss_20b_replay_atomic.csv",
    order: Order::Atomic,
    decimals: 4,
    columns: &[("lru", "lru"), ("lfu_persistent", "lfu"), ("lfru", "lfru"), ("belady", "belady")],
    cells: 16,
};

/// One cell, and what it takes to compute it.
struct Cell {
    dataset: String,
    policy: &'static str,
    capacity: usize,
    /// As it is printed.
    rate: String,
    /// Where the table has it.
    accesses: Option<u64>,
}

fn cells(path: &Path, table: &Table) -> Vec<Cell> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap().clone();
    let column = |name: &str| header.iter().position(|column| column == name);
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    let cell = |row: &csv::StringRecord, (title, policy): (&str, &'static str)| Cell {
        dataset: row[column("dataset").unwrap()].to_owned(),
        policy,
        capacity: row[column("capacity_slots").unwrap()].parse().unwrap(),
        rate: row[column(title).unwrap()].to_owned(),
        accesses: column("accesses").map(|index| row[index].parse().unwrap()),
    };
    let cell = &cell;
    rows.iter().flat_map(|row| table.columns.iter().map(move |&titles| cell(row, titles))).collect()
}

/// The demands of `a+b`: one file after the other, without repetitions.
fn demands(data: &Path, dataset: &str) -> Demands {
    let file = |name| data.join("moe_routing/gpt-oss-20b").join(name).with_extension("npz");
    let parts = dataset.split('+').map(|name| traces::open(file(name)).unwrap()).collect();
    RoutingTrace::concat(parts).unwrap().demands(false)
}

fn check(table: &Table) {
    let Some(data) = data() else { return };
    let cells = cells(&data.join(table.file), table);
    assert_eq!(cells.len(), table.cells);
    let fit = demands(&data, "mmlu_dev");
    for rows in cells.chunk_by(|a, b| a.dataset == b.dataset) {
        let demands = demands(&data, &rows[0].dataset);
        rows.par_iter().for_each(|cell| {
            let Cell { dataset, policy, capacity, .. } = cell;
            let input = ReplayInput {
                demands: &demands,
                fit: Some(&fit),
                capacity: *capacity,
                order: table.order,
                reset: Reset::Never,
                params: &[],
            };
            let result = lookup(policy).unwrap().run(&input).unwrap();
            let rate = format!("{:.*}", table.decimals, result.hit_rate());
            assert_eq!(rate, cell.rate, "{dataset}, {policy}, {capacity} slots");
            assert_eq!(result.accesses, cell.accesses.unwrap_or(result.accesses));
        });
    }
}

#[test]
fn access_order_equals_the_published_rates() {
    check(&ACCESS);
}

#[test]
fn atomic_order_equals_the_published_rates() {
    check(&ATOMIC);
}
