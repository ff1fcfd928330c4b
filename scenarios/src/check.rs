//! The top level of a scenario: reads every key, then checks what only the whole can show.

use crate::catalogue::SENSITIVITY;
use crate::diagnostics::Report;
use crate::load::open;
use crate::machine::machine;
use crate::model::import;
use crate::placement::{Ground, caps, check_caps, home, home_unplaced, kv_reserve};
use crate::reader::{Field, Fields};
use crate::scenario::{PolicyCheck, Scenario};
use crate::sensitivity::{Sensitivity, sensitivity};
use crate::tree::{Node, Value};
use crate::units::whole;
use crate::workload::{guard, policy, slo, workload};
use ::policy::{Machine, Model};
use std::collections::BTreeMap;

/// The table that is used where a scenario names none.
const SENSITIVITY_DEFAULT: &str = "synthetic-swiglu";

/// Reads a scenario's tree; `None` where anything was wrong.
pub(crate) fn check(report: &mut Report, root: &Node, check_policy: PolicyCheck<'_>) -> Option<Scenario> {
    let top = Field::root(root, "");
    let mut fields =
        top.fields(report, "a scenario is a map: name, machine, model, memory, workload, policy, ...")?;
    let name = fields.required(report, "name", "what this scenario shows", |text| Ok(text.to_owned()));
    let machine = fields.need(report, "machine", "h100-sxm").and_then(|field| read_machine(report, &field));
    let model = fields.need(report, "model", "gpt-oss-20b").and_then(|field| read_model(report, &field));
    let table = read_sensitivity(report, &mut fields);
    let workload = fields
        .need(report, "workload", "{ routing: { trace: my-trace.npz } }")
        .and_then(|field| workload(report, &field));
    let policy =
        fields.need(report, "policy", "predictive").and_then(|field| policy(report, &field, check_policy));
    let guard_field = fields.get("guard");
    let guard = guard(report, guard_field);
    let slo_field = fields.get("slo");
    let slo = slo(report, slo_field);
    let seed = fields.optional(report, "seed", 0, whole);
    let memory_field = fields.get("memory");
    let memory = match &memory_field {
        Some(field) => caps(report, field, machine.as_ref()),
        None => Some(BTreeMap::new()),
    };
    let kv_field = fields.get("kv");
    let batch = workload.as_ref().map(|workload| workload.requests.batch());
    let kv = kv_reserve(report, kv_field, model.as_ref(), batch);
    let home = match (&machine, &model, &memory) {
        (Some(machine), Some(model), Some(caps)) => {
            let at = memory_field.as_ref().unwrap_or(&top);
            home(report, &mut fields, at, &Ground { machine, model, caps, sensitivity: table.as_ref() })
        }
        _ => {
            home_unplaced(report, &mut fields);
            None
        }
    };
    fields.finish(report);
    let home = home?;
    let scenario = Scenario {
        name: name?,
        machine: machine?,
        model: model?,
        memory: memory?,
        kv_reserve: kv?,
        home: home.tier,
        encoded: home.encoded,
        workload: workload?,
        policy: policy?,
        guard: guard?,
        sensitivity: table?,
        slo: slo?,
        seed: seed?,
    };
    check_caps(report, memory_field.as_ref().unwrap_or(&top), &scenario);
    report.is_clean().then_some(scenario)
}

/// Paths start anew in another file.
fn rooted<'t>(field: &Field<'t>) -> Field<'t> {
    match field.node.at.source == field.key_at.source {
        true => field.clone(),
        false => Field::root(field.node, ""),
    }
}

fn read_machine(report: &mut Report, field: &Field<'_>) -> Option<Machine> {
    resolved(field)?;
    machine(report, &rooted(field))
}

fn read_model(report: &mut Report, field: &Field<'_>) -> Option<Model> {
    resolved(field)?;
    let name = report.source(field.node.at.source).stem();
    import(report, &rooted(field), &name).map(|imported| imported.model)
}

fn read_sensitivity(report: &mut Report, fields: &mut Fields<'_>) -> Option<Sensitivity> {
    match fields.get(SENSITIVITY.key) {
        Some(field) => {
            resolved(&field)?;
            sensitivity(report, &rooted(&field))
        }
        None => {
            let node = open(report, SENSITIVITY, SENSITIVITY_DEFAULT, None)?;
            sensitivity(report, &Field::root(&node, ""))
        }
    }
}

/// A name that is still a name could not be resolved, which was reported.
fn resolved(field: &Field<'_>) -> Option<()> {
    (!matches!(field.node.value, Value::Scalar(_))).then_some(())
}
