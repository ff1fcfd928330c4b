//! What can be set about the policy, and which of its inputs can be left out.

use crate::predict::{Distances, Kind};
use crate::registry::{Param, Scale};

/// Layers ahead that are predicted apart from the whole token where nothing is speculated on. More cost time and gain
/// nothing: with 4, 8 and 16 too, the stall of gpt-oss-20b is 0.02 % higher at 192 slots and 0.4 % at 384.
pub(super) const PREDICTED_NEAR: usize = 2;

pub(super) const PARAMS: &[Param] = &[
    Param {
        name: "horizon",
        about: "tokens a block is kept at most on its popularity alone, about",
        default: 1.0,
        min: 0.0,
        max: 100_000.0,
        scale: Scale::Log,
    },
    Param {
        name: "hysteresis",
        about: "how much more than its victim a speculative block must be worth",
        default: 0.1,
        min: 0.0,
        max: 10.0,
        scale: Scale::Log,
    },
    Param {
        name: "ahead",
        about: "layers ahead that are speculated on; 0 turns speculation off",
        default: 8.0,
        min: 0.0,
        max: 24.0,
        scale: Scale::Integer,
    },
    Param {
        name: "confidence",
        about: "standard errors taken off a probability before it is believed",
        default: 1.0,
        min: 0.0,
        max: 5.0,
        scale: Scale::Linear,
    },
    Param {
        name: "drift_gain",
        about: "how fast the price of drift follows the budget",
        default: 0.05,
        min: 0.0,
        max: 1.0,
        scale: Scale::Linear,
    },
    Param {
        name: "predictor",
        about: "0 popularity, 1 layer-to-layer transitions, 2 trajectory match, 3 the two mixed",
        default: 3.0,
        min: 0.0,
        max: 3.0,
        scale: Scale::Switch,
    },
    input("next_use", "when each layer comes next"),
    input("router_history", "what the router chose before"),
    input("costs", "what each move and each change of format costs"),
    input("pressure", "how busy links and memory are"),
    input("sensitivity", "what each format costs in output error; unknown, nothing lossy is used"),
];

/// A switch of one of the inputs.
const fn input(name: &'static str, about: &'static str) -> Param {
    Param { name, about, default: 1.0, min: 0.0, max: 1.0, scale: Scale::Switch }
}

/// The parameters of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) horizon: f64,
    pub(super) hysteresis: f64,
    pub(super) ahead: u32,
    pub(super) confidence: f64,
    pub(super) drift_gain: f64,
    pub(super) predictor: Kind,
    pub(super) inputs: Inputs,
}

/// Which inputs are looked at. All of them, but in an ablation; the sixth, the reuse horizon, is left out with a
/// `horizon` of 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs {
    pub(super) next_use: bool,
    pub(super) router_history: bool,
    pub(super) costs: bool,
    pub(super) pressure: bool,
    pub(super) sensitivity: bool,
}

impl Settings {
    /// Reads the values of [`PARAMS`], in their order.
    pub(super) fn read(params: &[f64]) -> Option<Settings> {
        let &[horizon, hysteresis, ahead, confidence, drift_gain, predictor, ref switches @ ..] = params
        else {
            return None;
        };
        let &[next_use, router_history, costs, pressure, sensitivity] = switches else { return None };
        let on = |value: f64| value >= 0.5;
        let inputs = Inputs {
            next_use: on(next_use),
            router_history: on(router_history),
            costs: on(costs),
            pressure: on(pressure),
            sensitivity: on(sensitivity),
        };
        let predictor = *Kind::ALL.get(predictor as usize)?;
        Some(Settings { horizon, hysteresis, ahead: ahead as u32, confidence, drift_gain, predictor, inputs })
    }

    /// The distances at which layers are predicted where moves are made ahead of demand.
    pub(super) fn distances(&self, layers: usize) -> Distances {
        Distances::until(PREDICTED_NEAR.max(self.ahead as usize), layers)
    }
}
