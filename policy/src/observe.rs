//! Phase one: events become signals.

use crate::event::{Event, EventKind, Routed};
use crate::id::LayerId;
use crate::phase::{Cadence, Phase};
use crate::units::{Nanos, Time};

/// Weight of the newest sample in the running means below.
const SMOOTHING: f64 = 1.0 / 16.0;

/// What the controller knows of the run beside its copies.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Now.
    pub now: Time,
    /// Steps whose tokens have been put out.
    pub step: u64,
    /// Layer steps so far.
    pub layer_step: u64,
    /// The layer being run.
    pub layer: LayerId,
    /// Layers of the model.
    pub layers: u32,
    /// Requests in the batch.
    pub concurrency: u32,
    /// Tokens that the running step computes.
    pub step_tokens: u32,
    /// Mean time the links are free of demand between one layer's experts and the next layer's routing.
    pub idle_window: Nanos,
    /// Mean time from a layer's experts being handed to the accelerator to their end.
    pub compute_window: Nanos,
    /// Mean time between one layer's routing and the next.
    pub layer_period: Nanos,
    /// Mean time a chunk waited before its link took it up.
    pub queue_delay: Nanos,
    /// A digest of everything observed, for the decision log.
    pub digest: u64,
    /// When layers come, where not every step goes through all of them.
    cadence: Option<Cadence>,
    routed_at: Option<Time>,
    computing_since: Option<Time>,
}

impl Signals {
    /// Signals of a run that has not begun, of a model with so many layers, in these phases.
    pub fn new(layers: u32, phases: &[Phase]) -> Signals {
        Signals {
            now: Time(0),
            step: 0,
            layer_step: 0,
            layer: LayerId(0),
            layers,
            concurrency: 0,
            step_tokens: 0,
            idle_window: Nanos::ZERO,
            compute_window: Nanos::ZERO,
            layer_period: Nanos::ZERO,
            queue_delay: Nanos::ZERO,
            digest: 0xcbf2_9ce4_8422_2325,
            cadence: Cadence::new(phases),
            routed_at: None,
            computing_since: None,
        }
    }

    /// A layer was routed, or its blocks have been computed.
    pub fn passed(&mut self, at: Time, layer: LayerId, routed: Option<&[Routed]>) {
        self.now = at;
        self.mix(at.0);
        match routed {
            Some(routed) => self.routed(layer, routed),
            None => self.done(),
        }
    }

    fn routed(&mut self, layer: LayerId, routed: &[Routed]) {
        let passed = u64::from(self.layers_until(layer));
        self.layer = layer;
        self.cadence.iter_mut().for_each(|cadence| cadence.routed(layer));
        self.layer_step += 1;
        self.mix(layer.0 as u64);
        for expert in routed {
            self.mix((expert.block.0 as u64) << 32 | expert.tokens as u64);
            self.mix(expert.gate_squared.to_bits() as u64);
        }
        if let Some(since) = self.computing_since.take() {
            self.idle_window = smooth(self.idle_window, self.now.since(since));
        }
        if let Some(before) = self.routed_at.replace(self.now) {
            let each = Nanos(self.now.since(before).0 / passed);
            self.layer_period = smooth(self.layer_period, each);
        }
    }

    fn done(&mut self) {
        if let Some(since) = self.computing_since {
            self.compute_window = smooth(self.compute_window, self.now.since(since));
        }
    }

    /// Takes an event in.
    pub fn observe(&mut self, event: &Event) {
        self.now = event.at;
        self.mix(event.at.0);
        match &event.kind {
            EventKind::LayerRouted { layer, routed } => self.routed(*layer, routed),
            EventKind::ChunkDone { id, queued } => {
                self.mix(id.0);
                self.queue_delay = smooth(self.queue_delay, *queued);
            }
            EventKind::HeadDone => self.step += 1,
            EventKind::HandedOn(batch) => {
                self.mix(batch.slices.len() as u64);
                batch.slices.iter().for_each(|slice| self.mix(u64::from(slice.request.0)));
            }
            EventKind::RequestArrived { request, output_tokens, .. } => {
                self.mix((request.0 as u64) << 32 | *output_tokens as u64);
            }
            EventKind::Foreseen { layer, routed } => {
                self.mix(u64::from(layer.0));
                routed.iter().for_each(|expert| self.mix(u64::from(expert.block.0)));
            }
            EventKind::LayerDone { .. } => self.done(),
            EventKind::Passed(_) | EventKind::NearDone { .. } | EventKind::Loaded | EventKind::Woken => {}
            EventKind::MemoryPressure { tier, reserved } => {
                self.mix(u64::from(tier.0));
                self.mix(reserved.0);
            }
            EventKind::TierLost { tier } => self.mix(u64::from(tier.0)),
            EventKind::AcceleratorsLost { lost } => lost.iter().for_each(|&rank| self.mix(rank.into())),
            EventKind::ChunkFailed { id } => self.mix(id.0),
        }
    }

    /// A step of a phase begins: see [`Cadence::begin`].
    pub fn begin_step(&mut self, phase: usize, next: Vec<u32>) {
        self.cadence.iter_mut().for_each(|cadence| cadence.begin(phase, next.clone()));
    }

    /// Layer steps from the one being run to the next visit of another layer, which may be the same: at least one.
    #[inline]
    pub fn layers_until(&self, layer: LayerId) -> u32 {
        if let Some(cadence) = &self.cadence {
            return cadence.until(layer);
        }
        let ahead = u32::from(layer.0) + self.layers - u32::from(self.layer.0);
        if ahead > self.layers { ahead - self.layers } else { ahead.max(1) }
    }

    /// The layer that comes in the given place, from 1 on, when all layers are ordered by their next visits.
    #[inline]
    pub fn coming(&self, place: u32) -> LayerId {
        match &self.cadence {
            Some(cadence) => cadence.coming(place),
            None => LayerId(((u32::from(self.layer.0) + place) % self.layers) as u16),
        }
    }

    /// Since when the links have carried no demand, while they carry none.
    pub fn computing_since(&self) -> Option<Time> {
        self.computing_since
    }

    /// Notes that the experts of a layer have been handed to the accelerator: from here the links carry no demand.
    pub fn computing(&mut self) {
        self.computing_since = Some(self.now);
    }

    /// FNV-1a over whole words: cheap, and the same everywhere.
    fn mix(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

/// An exponential running mean; the first sample stands for the past.
fn smooth(mean: Nanos, sample: Nanos) -> Nanos {
    if mean == Nanos::ZERO {
        return sample;
    }
    Nanos((mean.0 as f64 + SMOOTHING * (sample.0 as f64 - mean.0 as f64)) as u64)
}
