//! Every policy there is, under the one name it has everywhere.

use crate::control::Policy;
use crate::demand::Demands;
use crate::model::Model;
use crate::policies::script::Script;
use crate::policies::{
    adap_moe, arc, belady, dyna_byte, dyna_exq, fiddler, fifo, fine_moe, free_token, gdsf, group_offload,
    hobbit, hybri_moe, ktransformers, least_stale, lfru, lfu, lfu_decayed, lru, lru_layer,
    mixtral_offloading, model_offload, moe_infinity, moe_infinity_released, predictive, pro_moe, s3_fifo,
    script, sequential_offload, sieve, static_joint, static_set, w_tiny_lfu,
};
use crate::replay::{ReplayError, ReplayInput, ReplayResult};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The policies, in the order they are listed.
#[rustfmt::skip] // One line each.
static REGISTRY: &[Entry] = &[
    fifo::ENTRY,
    lru::ENTRY,
    lru_layer::ENTRY,
    lfu::ENTRY,
    lfu_decayed::ENTRY,
    lfru::ENTRY,
    sieve::ENTRY,
    s3_fifo::ENTRY,
    arc::ENTRY,
    w_tiny_lfu::ENTRY,
    gdsf::ENTRY,
    least_stale::ENTRY,
    static_set::ENTRY,
    moe_infinity::ENTRY,
    moe_infinity_released::ENTRY,
    fine_moe::ENTRY,
    hobbit::ENTRY,
    pro_moe::ENTRY,
    hybri_moe::ENTRY,
    static_joint::ENTRY,
    dyna_exq::ENTRY,
    dyna_byte::ENTRY,
    fiddler::ENTRY,
    ktransformers::ENTRY,
    free_token::ENTRY,
    adap_moe::ENTRY,
    mixtral_offloading::ENTRY,
    sequential_offload::ENTRY,
    model_offload::ENTRY,
    group_offload::ENTRY,
    predictive::ENTRY,
    script::ENTRY,
    belady::ENTRY,
];

/// Runs a policy over a trace without time.
pub type Replay = fn(&ReplayInput) -> Result<ReplayResult, ReplayError>;

/// Builds a policy for the controller.
pub type Simulate = fn(&SimulateInput) -> Result<Box<dyn Policy>, SimulateError>;

/// What a controller policy is built from.
#[derive(Clone, Copy, Debug)]
pub struct SimulateInput<'a> {
    /// The model.
    pub model: &'a Model,
    /// Full-precision blocks that fit the fast tier together.
    pub capacity: usize,
    /// Blocks that one layer step can demand at most.
    pub largest_demand: usize,
    /// What a fitted policy may learn from beforehand.
    pub fit: Option<&'a Demands>,
    /// Every demand of the run, for a policy that knows the future.
    pub future: Option<&'a Demands>,
    /// What a scripted policy runs.
    pub script: Option<&'a Arc<Script>>,
    /// The values of the policy's parameters, in the order of its registry entry.
    pub params: &'a [f64],
}

impl SimulateInput<'_> {
    /// The parameters of a policy that has `N` of them.
    pub(crate) fn params_of<const N: usize>(&self) -> Result<[f64; N], SimulateError> {
        self.params.try_into().map_err(|_| SimulateError::Params)
    }
}

/// Why a policy cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SimulateError {
    /// The registry entry serves replay only.
    #[error("{policy} cannot be simulated; use it in `replay`")]
    NotSimulated {
        /// The entry.
        policy: &'static str,
    },
    /// It needs layers of equally many blocks.
    #[error("this policy needs a model whose layers all have the same number of blocks")]
    UnevenLayers,
    /// The parameters do not match the entry.
    #[error("the parameters do not match the policy's registry entry")]
    Params,
    /// It needs to know the run beforehand.
    #[error(
        "this policy knows the future, which only exists where requests do not depend on time; use `requests: {{ closed: {{ batch: ... }} }}`, and no `kv.paged`"
    )]
    NoFuture,
    /// It runs a script, and has none.
    #[error("this policy runs a script and has none; write `policy: {{ script: my.rhai }}`")]
    NoScript,
    /// What replay would say of the same input.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// A policy: what it is called and what it can do.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name in scenarios, on the command line and in reports.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// What can be set.
    pub params: &'static [Param],
    /// How it is replayed, if it can be; call it through [`Entry::run`].
    pub replay: Option<Replay>,
    /// How it is built for the controller, if it can be; call it through [`Entry::build`].
    pub simulate: Option<Simulate>,
    /// Whether it knows the future.
    pub clairvoyant: bool,
    /// Whether it learns from another trace beforehand.
    pub fitted: bool,
    /// Whether it runs a script.
    pub scripted: bool,
}

/// A number that changes what a policy does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Its value where none is given.
    pub default: f64,
    /// The least allowed value.
    pub min: f64,
    /// The greatest allowed value.
    pub max: f64,
    /// How a search walks from the least to the greatest.
    pub scale: Scale,
}

/// What lies between the least and the greatest value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Any number; equal differences matter equally.
    Linear,
    /// Numbers from zero; equal ratios matter equally. ln(value) is walked, or ln(1 + value) where zero is allowed.
    Log,
    /// Whole numbers.
    Integer,
    /// On from one half. It is there to leave something out for comparison: no search touches it unasked.
    Switch,
}

impl Scale {
    /// Its name, as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Scale::Linear => "linear",
            Scale::Log => "log",
            Scale::Integer => "integer",
            Scale::Switch => "switch",
        }
    }
}

impl Entry {
    /// An online policy that needs nothing beforehand, to be given a name and ways to run.
    pub const ONLINE: Entry = Entry {
        name: "",
        about: "",
        params: &[],
        replay: None,
        simulate: None,
        clairvoyant: false,
        fitted: false,
        scripted: false,
    };

    /// Builds the policy for the controller.
    ///
    /// # Errors
    /// Where the policy serves replay only, or refuses the input.
    pub fn build(&self, input: &SimulateInput) -> Result<Box<dyn Policy>, SimulateError> {
        self.simulate.ok_or(SimulateError::NotSimulated { policy: self.name })?(input)
    }

    /// The value of every parameter, from those given by name and the defaults.
    ///
    /// # Errors
    /// A name that is not a parameter, or a value out of range.
    pub fn resolve(&self, given: &BTreeMap<String, f64>) -> Result<Vec<f64>, ParamError> {
        let unknown = given.keys().find(|name| self.params.iter().all(|param| param.name != name.as_str()));
        if let Some(name) = unknown {
            let known = self.params.iter().map(|param| param.name).collect();
            return Err(ParamError::Unknown { policy: self.name, name: name.clone(), known });
        }
        let value = |param: &Param| {
            let value = given.get(param.name).copied().unwrap_or(param.default);
            let Param { name, min, max, .. } = *param;
            (min..=max).contains(&value).then_some(value).ok_or(ParamError::Range { name, value, min, max })
        };
        self.params.iter().map(value).collect()
    }

    /// Checks the parameters and replays.
    ///
    /// # Errors
    /// Where the policy serves simulation only, a parameter is missing or out of range, or the rule refuses the input.
    pub fn run(&self, input: &ReplayInput) -> Result<ReplayResult, ReplayError> {
        let (policy, given, expected) = (self.name, input.params.len(), self.params.len());
        let replay = self.replay.ok_or(ReplayError::NotReplayable { policy })?;
        if given != expected {
            return Err(ReplayError::ParamCount { policy, expected, given });
        }
        for (&Param { name: param, min, max, .. }, &value) in self.params.iter().zip(input.params) {
            if !(min..=max).contains(&value) {
                return Err(ReplayError::ParamRange { policy, param, value, min, max });
            }
        }
        replay(input)
    }
}

/// A parameter that a policy does not take.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParamError {
    /// It has no parameter of this name.
    #[error("{policy} has no parameter `{name}`; {}", list(known))]
    Unknown {
        /// The policy.
        policy: &'static str,
        /// What was given.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The value is out of range, or not a number.
    #[error("`{name}` is {value}, which is not between {min} and {max}")]
    Range {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: f64,
        /// The least allowed value.
        min: f64,
        /// The greatest allowed value.
        max: f64,
    },
}

fn list(known: &[&'static str]) -> String {
    if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) }
}

/// A name that is not in the registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy `{name}`{}; there are {}", self.hint(), self.known())]
pub struct UnknownPolicy {
    /// What was asked for.
    pub name: String,
    /// The name that was probably meant.
    pub meant: Option<&'static str>,
}

impl UnknownPolicy {
    fn hint(&self) -> String {
        self.meant.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
    }

    fn known(&self) -> String {
        REGISTRY.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
    }
}

/// Every policy, in the order they are listed.
pub fn registry() -> &'static [Entry] {
    REGISTRY
}

/// The policy called `name`.
///
/// # Errors
/// Where there is none, with the nearest name if one is near.
pub fn lookup(name: &str) -> Result<&'static Entry, UnknownPolicy> {
    /// A slip of the fingers changes this many letters at most.
    const SLIPS: usize = 2;
    REGISTRY.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let distances =
            REGISTRY.iter().map(|entry| (strsim::damerau_levenshtein(name, entry.name), entry.name));
        let nearest = distances.min_by_key(|&(distance, _)| distance);
        let meant = nearest.filter(|&(distance, near)| distance <= SLIPS.min(near.len() - 1));
        UnknownPolicy { name: name.to_owned(), meant: meant.map(|(_, near)| near) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{Order, Reset};

    fn input<'a>(demands: &'a Demands, params: &'a [f64]) -> ReplayInput<'a> {
        ReplayInput { demands, fit: None, capacity: 1, order: Order::Access, reset: Reset::Never, params }
    }

    #[test]
    fn names_are_unique_and_found() {
        for entry in registry() {
            assert!(std::ptr::eq(lookup(entry.name).unwrap(), entry));
            assert!(!entry.about.contains('\n'));
            for param in entry.params {
                assert!((param.min..=param.max).contains(&param.default), "{}.{}", entry.name, param.name);
                assert!(param.scale != Scale::Log || param.min >= 0.0, "{}.{}", entry.name, param.name);
            }
        }
    }

    #[test]
    fn a_slip_gets_a_hint() {
        assert_eq!(lookup("beladi").unwrap_err().meant, Some("belady"));
        assert_eq!(lookup("sttaic").unwrap_err().meant, Some("static"));
        assert_eq!(lookup("clairvoyant").unwrap_err().meant, None);
        let unknown = lookup("seive").unwrap_err().to_string();
        assert!(unknown.starts_with("unknown policy `seive`, did you mean `sieve`?; there are fifo, lru, "));
        assert!(registry().iter().all(|entry| unknown.contains(entry.name)));
    }

    #[test]
    fn parameters_are_checked() {
        const PARAM: Param = Param {
            name: "horizon",
            about: "steps ahead",
            default: 8.0,
            min: 1.0,
            max: 64.0,
            scale: Scale::Log,
        };
        let entry = Entry { params: &[PARAM], ..lru::ENTRY };
        let demands = Demands::new(1);
        assert!(entry.run(&input(&demands, &[1.0])).is_ok());
        assert!(matches!(entry.run(&input(&demands, &[])), Err(ReplayError::ParamCount { expected: 1, .. })));
        for value in [0.5, 65.0, f64::NAN] {
            assert!(matches!(entry.run(&input(&demands, &[value])), Err(ReplayError::ParamRange { .. })));
        }
    }

    #[test]
    fn what_cannot_be_replayed_says_so() {
        let demands = Demands::new(1);
        let entry = Entry { replay: None, ..lru::ENTRY };
        assert_eq!(entry.run(&input(&demands, &[])), Err(ReplayError::NotReplayable { policy: "lru" }));
        assert_eq!(static_set::ENTRY.run(&input(&demands, &[])), Err(ReplayError::NoFit));
        let fit = Demands::new(2);
        let other_model = ReplayInput { fit: Some(&fit), ..input(&demands, &[]) };
        assert!(matches!(
            static_set::ENTRY.run(&other_model),
            Err(ReplayError::FitUniverse { fit: 2, demands: 1 })
        ));
    }
}
