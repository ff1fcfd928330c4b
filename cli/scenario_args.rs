//! The arguments by which every command names a scenario, and what becomes of them.

use crate::failure::Failure;
use indexmap::IndexMap;
use scenarios::Scenario;
use sim::Case;
use sim::resolve::{Library, SeedsError, check_policy};

/// A scenario and what is changed in it.
#[derive(clap::Args)]
pub(crate) struct Overrides {
    /// Override a value of the scenario, as in `--set memory.hbm='6 GiB'`; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
}

/// `path=value`, split at the first `=`.
pub(crate) fn assignment(text: &str) -> Result<(String, String), String> {
    let (path, value) = text.split_once('=').ok_or("write it as PATH=VALUE, for example policy=lru")?;
    Ok((path.trim().to_owned(), value.trim().to_owned()))
}

/// The values of `--sweep path=a,b,c`.
pub(crate) fn sweep_values<'v>(path: &str, values: &'v str) -> Result<Vec<&'v str>, Failure> {
    let found = scenarios::alternatives(values);
    match found.iter().position(|value| value.is_empty()) {
        Some(index) => Err(Failure::refused(format!(
            "--sweep {path}= has no value {}: write it as {path}=A,B,C",
            index + 1
        ))),
        None => Ok(found),
    }
}

/// The most points of a cross product of sweeps.
const MOST_POINTS: usize = 10_000;

/// Every point of the cross product of sweeps, the last of them running fastest; one point where there are none.
pub(crate) fn sweep_points(sweeps: &[(String, String)]) -> Result<Vec<IndexMap<String, String>>, Failure> {
    let mut points = vec![IndexMap::new()];
    for (path, values) in sweeps {
        if points.iter().any(|point: &IndexMap<_, _>| point.contains_key(path)) {
            return Err(Failure::refused(format!(
                "--sweep {path}= is given twice: put all its values into one"
            )));
        }
        let values = sweep_values(path, values)?;
        if points.len().saturating_mul(values.len()) > MOST_POINTS {
            return Err(Failure::refused(format!("the sweeps have more than {MOST_POINTS} points together")));
        }
        let with = |point: &IndexMap<String, String>, value: &str| {
            let mut point = point.clone();
            point.insert(path.clone(), value.to_owned());
            point
        };
        points = points.iter().flat_map(|point| values.iter().map(move |value| with(point, value))).collect();
    }
    Ok(points)
}

/// Loads a scenario; all its errors at once.
pub(crate) fn load(name: &str, set: &[(String, String)]) -> Result<Scenario, Failure> {
    Ok(scenarios::load(name, set, &check_policy)?)
}

/// Loads a scenario and opens or generates its routing.
pub(crate) fn load_case(name: &str, set: &[(String, String)]) -> Result<(Scenario, Case), Failure> {
    let scenario = load(name, set)?;
    let case = Case::from_scenario(&scenario).map_err(Failure::refused)?;
    Ok((scenario, case))
}

/// A scenario with a case for each of `seeds` seeds: see [`Library::seeds`].
pub(crate) fn seeded_cases(
    library: &mut Library,
    name: &str,
    set: &[(String, String)],
    seeds: u64,
) -> Result<(Scenario, Vec<Case>), Failure> {
    Ok(library.seeds(name, set, seeds)?)
}

impl From<SeedsError> for Failure {
    fn from(error: SeedsError) -> Failure {
        match error {
            SeedsError::Scenario(diagnostics) => diagnostics.into(),
            SeedsError::Case(_) | SeedsError::Room { .. } => Failure::refused(error),
        }
    }
}
