//! What binds at a configuration: the objective that is nearest to being broken, the steps down that break it, and the
//! resource of which more helps most.

use super::Question;
use super::figures::{Figures, THROUGHPUT};
use super::goal::{Tried, estimates, tightest};
use super::resources::{MEMORY, RESOURCES, Resource};
use super::trials::{Bench, Trials};
use crate::statistics::Estimate;
use rayon::prelude::*;
use serde::Serialize;

/// More of a resource, for what it buys; and less of it, for what its absence costs.
const MORE: u64 = 110;
const LESS: u64 = 90;
/// So much more of one that it never binds.
const ENDLESS: u64 = 100_000;
/// The least change that counts as one.
const CHANGE: f64 = 0.005;

/// What more or less of a resource comes to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// The resource.
    pub resource: &'static str,
    /// What there is more or less of.
    pub about: &'static str,
    /// How many per cent of it there are.
    pub percent: u64,
    /// The objective's latency then, at its percentile.
    pub latency_ms: Estimate,
    /// Its change, as a share; negative is better.
    pub latency_change: f64,
    /// Tokens put out a second then, by one machine.
    pub output_throughput_tok_s: Estimate,
    /// Its change, as a share; positive is better.
    pub throughput_change: f64,
}

/// What binds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Binding {
    /// The objective nearest to being broken: `ttft` or `tpot`.
    pub metric: &'static str,
    /// The most it may be.
    pub limit_ms: f64,
    /// What it is, at its percentile.
    pub latency_ms: Estimate,
    /// What binds. Where the objectives are met: the resource of which 10 % less costs the most, which is memory where less
    /// of it holds no block. Where they are not: the one of which 10 % more helps the most. `none` where nothing does.
    pub resource: &'static str,
    /// What 10 % less of each resource comes to, where the objectives are met.
    pub less: Vec<Gain>,
    /// One step less on each axis that grows.
    pub steps: Vec<Step>,
}

/// One step less on an axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The axis.
    pub axis: String,
    /// Its value then; null where there is none.
    pub value: Option<String>,
    /// What becomes of it.
    pub then: Less,
    /// The objective's latency then, where it was run.
    pub latency_ms: Option<Estimate>,
}

/// What becomes of a configuration with one step less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Less {
    /// It is the least already.
    Least,
    /// It does not fit.
    Misfit,
    /// It misses the objectives.
    Misses,
    /// It meets them.
    Meets,
}

type Report = (Option<Binding>, Vec<Gain>, Vec<Gain>);

/// What binds at a configuration, and what 10 % more of each resource comes to; and without limit, where it misses the
/// objectives.
pub(super) fn report<B: Bench>(
    question: &Question<'_>,
    trials: &Trials<'_, B>,
    at: &Tried,
) -> Result<Report, B::Error> {
    let Some((bound, _)) = tightest(&at.estimates, question.bounds) else { return Ok(Report::default()) };
    let steps = steps(question, trials, at, bound.figure)?;
    let sensitivity = gains(trials, at, bound.figure, MORE)?;
    let other = gains(trials, at, bound.figure, if at.meets() { LESS } else { ENDLESS })?;
    let (less, unlimited) = if at.meets() { (other, Vec::new()) } else { (Vec::new(), other) };
    let binding = Binding {
        metric: bound.metric,
        limit_ms: bound.limit_ms,
        latency_ms: at.estimates[bound.figure],
        resource: match at.meets() {
            true => costliest(question, &steps, &less),
            false => most_helpful(&sensitivity),
        },
        less,
        steps,
    };
    Ok((Some(binding), sensitivity, unlimited))
}

/// The resource of which less costs the most.
fn costliest(question: &Question<'_>, steps: &[Step], less: &[Gain]) -> &'static str {
    let memory = |step: &Step| {
        let axis = question.space.axes().iter().find(|axis| axis.name == step.axis);
        axis.and_then(|axis| axis.path.as_ref()).is_some_and(|path| path.starts_with("memory."))
    };
    if steps.iter().any(|step| step.then == Less::Misfit && memory(step)) {
        return MEMORY.name;
    }
    let most = less.iter().max_by(|a, b| a.latency_change.total_cmp(&b.latency_change));
    most.filter(|gain| gain.latency_change > CHANGE).map_or("none", |gain| gain.resource)
}

/// The resource of which more helps the most.
fn most_helpful(more: &[Gain]) -> &'static str {
    let best = more.iter().min_by(|a, b| a.latency_change.total_cmp(&b.latency_change));
    best.filter(|gain| gain.latency_change < -CHANGE).map_or("none", |gain| gain.resource)
}

/// The runs at a configuration with so many per cent of each resource.
fn gains<B: Bench>(
    trials: &Trials<'_, B>,
    at: &Tried,
    figure: usize,
    percent: u64,
) -> Result<Vec<Gain>, B::Error> {
    let run = |resource: &'static Resource| {
        Ok(trials.bench.run_with(&at.candidate.point, resource, percent)?.map(|runs| (resource, runs)))
    };
    // All are run before an error is looked at, so that the first in order is told, whichever came first.
    let runs: Vec<Result<_, B::Error>> = RESOURCES.par_iter().map(run).collect();
    let runs = runs.into_iter().collect::<Result<Vec<Option<_>>, _>>()?;
    let gain = |(resource, runs): (&Resource, Vec<Figures>)| {
        let then = estimates(&runs);
        let change = |place: usize| then[place].mean / at.estimates[place].mean - 1.0;
        Gain {
            resource: resource.name,
            about: resource.about,
            percent,
            latency_ms: then[figure],
            latency_change: change(figure),
            output_throughput_tok_s: then[THROUGHPUT],
            throughput_change: change(THROUGHPUT),
        }
    };
    Ok(runs.into_iter().flatten().map(gain).collect())
}

/// One step less on each axis that grows.
fn steps<B: Bench>(
    question: &Question<'_>,
    trials: &Trials<'_, B>,
    at: &Tried,
    figure: usize,
) -> Result<Vec<Step>, B::Error> {
    let point = &at.candidate.point;
    let mut steps = Vec::new();
    for (place, axis) in question.space.axes().iter().enumerate().filter(|(_, axis)| axis.grows) {
        let less = question.space.below(point).find(|(other, _)| *other == place);
        let value = less.as_ref().map(|(_, less)| axis.values[less[place]].clone());
        let (then, latency_ms) = match less {
            None => (Less::Least, None),
            Some((_, less)) => match trials.bench.describe(&less)? {
                Err(_) => (Less::Misfit, None),
                Ok(candidate) => {
                    let tried = trials.run(&candidate)?;
                    let then = if tried.meets() { Less::Meets } else { Less::Misses };
                    (then, Some(tried.estimates[figure]))
                }
            },
        };
        steps.push(Step { axis: axis.name.clone(), value, then, latency_ms });
    }
    Ok(steps)
}
