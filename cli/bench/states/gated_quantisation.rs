//! Gated state quantisation: the run of its seed, what it saves and loses in layers of models, and where it does not hold.

mod layers;
mod mamba1;
mod seed_run;

use super::{Bench, Findings, Section};
use crate::failure::Failure;
use serde::Serialize;

pub(super) const SECTION: Section = Section { name: "gated_quantisation", run };

/// Tokens that the ring of inputs has room for.
const RING: usize = 16;

#[derive(Serialize)]
struct Report {
    seed_run: Vec<seed_run::Step>,
    layers: Vec<layers::Layer>,
    mamba1: mamba1::Report,
}

fn run(bench: &Bench) -> Result<Findings, Failure> {
    let seed_run = seed_run::run()?;
    let layers = layers::measure(bench)?;
    let mamba1 = mamba1::measure()?;
    let tables: String = layers.iter().map(layers::Layer::text).collect();
    let text = format!("{}{tables}{}", seed_run::table(&seed_run), mamba1.text());
    Findings::new(text, &Report { seed_run, layers, mamba1 })
}
