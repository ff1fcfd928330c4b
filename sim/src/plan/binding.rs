//! What binds at a configuration: the objective that is nearest to being broken, the steps down that break it, and the
//! resource of which more helps most.

use super::Question;
use super::cutoff::{Run, Stopped};
use super::figures::{Figures, THROUGHPUT};
use super::goal::{Bound, Tried, estimates, tightest};
use super::resources::{MEMORY, RESOURCES, Resource};
use super::trials::{Ask, Bench, Trials};
use crate::statistics::Estimate;
use rayon::prelude::*;
use serde::Serialize;

/// More of a resource, for what it buys; and less of it, for what its absence costs.
const MORE: u64 = 110;
const LESS: u64 = 90;
/// So much more of one that it never binds.
const ENDLESS: u64 = 100_000;
/// A run with less of a resource stops at so many times the latency: then it costs at least that.
const WORSE: f64 = 1.5;
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
    /// Seeds that were run: the first alone where it shows next to no change, or of less of a resource.
    pub seeds: usize,
    /// The objective's latency then, at its percentile; NaN where the run was stopped.
    pub latency_ms: Estimate,
    /// Its change over the same seeds, as a share; negative is better.
    pub latency_change: f64,
    /// Why and when the run was stopped, if it was: then the change is at least this.
    pub stopped: Option<Stopped>,
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
    /// The objective's latency then, where it was run to its end.
    pub latency_ms: Option<Estimate>,
    /// Why and when its runs were stopped, if they were.
    pub stopped: Option<Stopped>,
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
    let seeds = trials.bench.seeds();
    let now = at.runs.first().map_or(f64::NAN, |run| run[bound.figure]);
    let until = [Bound { limit_ms: WORSE * now, ..bound }];
    let more = Look { percent: MORE, until: &[], seeds };
    let other = match at.meets() {
        true => Look { percent: LESS, until: &until, seeds: 1 },
        false => Look { percent: ENDLESS, ..more },
    };
    let run = |look| gains(trials, at, bound.figure, look);
    let (sensitivity, other) = rayon::join(|| run(more), || run(other));
    let (sensitivity, other) = (sensitivity?, other?);
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
    // Of runs that were stopped, the one that was first costs the most.
    let after = |gain: &Gain| gain.stopped.map_or(1.0, |stopped| stopped.after);
    let order = |a: &&Gain, b: &&Gain| {
        a.latency_change.total_cmp(&b.latency_change).then(after(b).total_cmp(&after(a)))
    };
    let most = less.iter().max_by(order);
    most.filter(|gain| gain.latency_change > CHANGE).map_or("none", |gain| gain.resource)
}

/// The resource of which more helps the most.
fn most_helpful(more: &[Gain]) -> &'static str {
    let best = more.iter().min_by(|a, b| a.latency_change.total_cmp(&b.latency_change));
    best.filter(|gain| gain.latency_change < -CHANGE).map_or("none", |gain| gain.resource)
}

/// How a resource is looked at: so many per cent of it, until a run passes a limit, on more than the first seed or not.
#[derive(Clone, Copy)]
struct Look<'l> {
    percent: u64,
    until: &'l [Bound],
    seeds: usize,
}

/// The runs at a configuration with so many per cent of each resource, beside the runs of the same seeds without. The first
/// seed says whether the resource matters at all; the others are run where it does.
fn gains<B: Bench>(
    trials: &Trials<'_, B>,
    at: &Tried,
    figure: usize,
    look: Look<'_>,
) -> Result<Vec<Gain>, B::Error> {
    let Look { percent, until, seeds } = look;
    let gain = |resource: &'static Resource| {
        let run = |seeds| {
            let with = Some((resource, percent));
            trials.bench.run(&at.candidate.point, &Ask { seeds, until, with })
        };
        let Some(mut runs) = run(0..1)? else { return Ok(None) };
        let first = Gain::new(resource, at, &runs, figure, look);
        if first.latency_change.abs() > CHANGE || first.throughput_change.abs() > CHANGE {
            runs.extend(run(1..seeds)?.unwrap_or_default());
        }
        Ok(Some(Gain::new(resource, at, &runs, figure, look)))
    };
    // All are run before an error is looked at, so that the first in order is told, whichever came first.
    let gains: Vec<Result<Option<Gain>, B::Error>> = RESOURCES.par_iter().map(gain).collect();
    Ok(gains.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

impl Gain {
    fn new(resource: &Resource, at: &Tried, runs: &[Run], figure: usize, look: Look<'_>) -> Gain {
        let whole: Vec<Figures> = runs.iter().filter_map(Run::figures).copied().collect();
        let stopped = runs.iter().find_map(Run::stopped);
        let (then, now) = (estimates(&whole), estimates(&at.runs[..runs.len().min(at.runs.len())]));
        let change = |place: usize| then[place].mean / now[place].mean - 1.0;
        let limit = look.until.first().filter(|_| stopped.is_some());
        Gain {
            resource: resource.name,
            about: resource.about,
            percent: look.percent,
            seeds: runs.len(),
            latency_ms: then[figure],
            latency_change: limit.map_or(change(figure), |limit| limit.limit_ms / now[figure].mean - 1.0),
            stopped,
            output_throughput_tok_s: then[THROUGHPUT],
            throughput_change: change(THROUGHPUT),
        }
    }
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
        let mut step =
            Step { axis: axis.name.clone(), value, then: Less::Least, latency_ms: None, stopped: None };
        if let Some((_, less)) = less {
            step.then = Less::Misfit;
            if let Ok(candidate) = trials.bench.describe(&less)? {
                let tried = trials.run(&candidate)?;
                step.then = if tried.meets() { Less::Meets } else { Less::Misses };
                step.latency_ms = Some(tried.estimates[figure]).filter(|_| tried.stopped.is_none());
                step.stopped = tried.stopped;
            }
        }
        steps.push(step);
    }
    Ok(steps)
}
