//! The scenario language: YAML with units, errors that say where and what would be right, machine files, models from
//! Hugging Face configs, and the catalogue of what ships.

mod catalogue;
mod check;
mod checkpoints;
mod control;
mod conversations;
mod diagnostics;
mod gguf;
mod include;
mod keys;
mod load;
mod machine;
mod machine_keys;
mod model;
mod model_keys;
mod overrides;
mod parallel;
mod peers;
mod phases;
mod pipeline;
mod placement;
mod policy_file;
mod pressure;
mod price;
mod processors;
pub mod range;
mod reader;
mod recipe;
mod recurrent;
mod requests;
mod resident;
mod scenario;
mod schema;
mod sensitivity;
mod served;
mod shape;
mod source;
mod staging;
mod tenants;
mod times;
mod tree;
mod units;
mod unsupported;
mod variables;
mod weights;
mod workload;

pub use catalogue::{machine, machines, model, models, scenarios};
pub use check::is_key;
pub use conversations::{Conversations, PrefixOrder};
pub use diagnostics::{Diagnostic, Diagnostics};
pub use load::{load, load_text};
pub use model::ModelFacts;
pub use overrides::alternatives;
pub use placement::CONTEXT_GUESS;
pub use policy_file::load_policy;
pub use pressure::{Pressure, Taken};
pub use price::Price;
pub use scenario::{
    Cap, Guard, Kv, Paged, Parallel, PolicyCheck, PolicyChoice, PolicyComplaint, Resident, Scenario,
    Schedule, ScriptFile, Slo, StageShare, Tenant,
};
pub use schema::{Document, schema};
pub use sensitivity::{FormatError, Sensitivity};
pub use served::{
    Arrivals, Dense, Fitted, Length, Prefill, Process, Recording, RequestFormat, RequestOrder, Requests,
    Routing, Workload, ZipfMarkov,
};
pub use units::ArrivalRate;
