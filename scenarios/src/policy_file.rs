//! A policy with its parameters in a file of its own, `policy: { NAME: { PARAMETER: VALUE } }`, as `tune` writes it.

use crate::control;
use crate::diagnostics::{Diagnostics, Report};
use crate::keys::{Key, Table, Type};
use crate::load::read_tree;
use crate::reader::Field;
use crate::scenario::{PolicyCheck, PolicyChoice};
use std::path::Path;

static POLICY_FILE: Table = Table {
    name: "policy_file",
    about: "A policy with its parameters",
    open: false,
    keys: &[Key::required("policy", Type::Policy, "{ predictive: { horizon: 32 } }", "The policy")],
};

/// Loads a policy and its parameters from a file. `check_policy` is the registry's word on them.
///
/// # Errors
/// Every error of the file, at once.
pub fn load_policy(path: &Path, check_policy: PolicyCheck<'_>) -> Result<PolicyChoice, Diagnostics> {
    let mut report = Report::default();
    let choice = read_tree(&mut report, path).and_then(|root| {
        let keys = Field::root(&root, "").keys(&mut report, &POLICY_FILE)?;
        let policy = keys.need(&mut report, "policy")?;
        control::policy(&mut report, &policy, check_policy)
    });
    report.finish(choice)
}
