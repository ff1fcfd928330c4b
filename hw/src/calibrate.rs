//! Measures a machine as a device sees it: the same commands that a run submits, timed by the same reports, become the
//! numbers of a machine file. What a run pays for is what is measured: cold memory, one copy after the other, sums of
//! bytes where several flow at once.

mod bench;
mod codecs;
mod kernels;
mod links;
mod recipes;
mod steady;
mod yaml;

pub use self::codecs::CodecRates;
pub use self::kernels::{Kernels, Timed};
pub use self::links::{Contention, Direction};
pub use self::steady::Steady;

use self::bench::Bench;
use crate::engine::Engine;
use crate::refusal::DeviceError;
use policy::fit::FitError;
use policy::kernel::KernelError;
use policy::machine::{Backing, Class};
use policy::units::{Bandwidth, Bytes, FlopRate, Nanos};
use thiserror::Error;

/// Why a machine could not be measured.
#[derive(Debug, Error)]
pub enum CalibrateError {
    /// The device refused, or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Measured copies make no link.
    #[error("copies from {from} to {to}: {source}")]
    Link {
        /// Where from.
        from: &'static str,
        /// Where to.
        to: &'static str,
        /// Why.
        source: FitError,
    },
    /// Measured products make no table.
    #[error("products with {format}: {source}")]
    Kernel {
        /// The format.
        format: &'static str,
        /// Why.
        source: KernelError,
    },
}

/// What is measured, and with how much memory.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the machine.
    pub name: String,
    /// The day, as the file should say it.
    pub date: String,
    /// Capacity of the fast tier, of host memory and of storage, as the file should say them. A storage of zero bytes is
    /// left out.
    pub capacity: [Bytes; 3],
    /// Bytes that copies go through before one is used again: more than the caches hold.
    pub cold: Bytes,
    /// Sizes of copies.
    pub sizes: Vec<Bytes>,
    /// The size of copies that go both ways, and of blocks that change their format.
    pub large: Bytes,
    /// Sides of the experts: gate and up take the first to the second, down takes it back.
    pub expert: [u64; 2],
    /// Numbers of tokens.
    pub tokens: Vec<u32>,
    /// How long one time is measured that does not settle.
    pub patience: Nanos,
}

/// The tiers of a machine that is measured, by the names that the catalogue's machines have, so that one can take the
/// place of another in a scenario.
pub const TIERS: [(&str, Class, Backing); 3] = [
    ("hbm", Class::Fast, Backing::Device),
    ("dram", Class::Staged, Backing::Pinned),
    ("nvme", Class::Cold, Backing::File),
];

/// What was measured.
#[derive(Debug)]
pub struct Calibration {
    plan: Plan,
    device: String,
    directions: Vec<Direction>,
    contention: Contention,
    kernels: Kernels,
    host_kernels: Kernels,
    codecs: Vec<CodecRates>,
    host_codecs: Vec<CodecRates>,
    merge: FlopRate,
}

impl Calibration {
    /// Measures. `say` is told what comes next.
    pub fn run(
        engine: &dyn Engine,
        plan: Plan,
        say: &mut dyn FnMut(&str),
    ) -> Result<Calibration, CalibrateError> {
        let bench = Bench::new(engine, &plan);
        let mut directions = Vec::new();
        for (from, to) in links::pairs(&plan) {
            say(&format!("copies from {} to {}", TIERS[from].0, TIERS[to].0));
            directions.push(links::direction(&bench, from, to)?);
        }
        say("products");
        let kernels = kernels::measure(&bench, false)?;
        say("products on the host");
        let host_kernels = kernels::measure(&bench, true)?;
        say("copies and products at once");
        let contention = links::contention(&bench)?;
        say("formats");
        let codecs = codecs::measure(&bench, 0)?;
        let host_codecs = codecs::measure(&bench, 1)?;
        say("recipes");
        let merge = recipes::measure(&bench)?;
        let device = engine.name();
        Ok(Calibration {
            plan,
            device,
            directions,
            contention,
            kernels,
            host_kernels,
            codecs,
            host_codecs,
            merge,
        })
    }

    /// The machine file.
    pub fn yaml(&self) -> String {
        yaml::write(self)
    }

    /// Every time that was measured: of what, how many bytes, and how steady.
    pub fn times(&self) -> Vec<(String, Bytes, &Steady)> {
        let copies = self.directions.iter().flat_map(|direction| {
            let name = format!("{} to {}", direction.from_name(), direction.to_name());
            direction.times.iter().map(move |(size, time)| (name.clone(), *size, time))
        });
        let places = [("", &self.kernels), (" on the host", &self.host_kernels)];
        let products = places.into_iter().flat_map(|(place, kernels)| {
            kernels.times.iter().map(move |timed| {
                let Timed { format, tokens, experts, bytes, time } = timed;
                (format!("{experts} experts in {}, {tokens} tokens{place}", format.name()), *bytes, time)
            })
        });
        copies.chain(products).collect()
    }

    /// Copies and products at once.
    pub fn contention(&self) -> &Contention {
        &self.contention
    }

    /// Formats, on the device and on the host.
    pub fn codecs(&self) -> [&[CodecRates]; 2] {
        [&self.codecs, &self.host_codecs]
    }

    /// Large copies both ways: from, to, and the rate.
    pub fn duplex(&self) -> impl Iterator<Item = (&'static str, &'static str, Bandwidth)> + '_ {
        self.directions.iter().map(|way| (way.from_name(), way.to_name(), way.duplex))
    }
}
