//! The key `tenants`: further models on the same machine, each with requests of its own. One controller decides for all of
//! them, so that a byte of fast memory has one price.

use crate::catalogue::MODEL;
use crate::diagnostics::{Report, Wrong};
use crate::include::resolve;
use crate::keys::Type::{File, Map, Text};
use crate::keys::{Key, Table};
use crate::model::import;
use crate::reader::{Field, text};
use crate::scenario::Tenant;
use crate::served::Routing;
use crate::tree::Value;
use crate::workload::{WORKLOAD, workload};
use policy::Model;

/// The keys of one of them.
pub(crate) static TENANT: Table = Table {
    name: "tenant",
    about: "A further model on the machine, and what is asked of it",
    open: false,
    keys: &[
        Key::required("name", Text, "images", "What it is called in reports"),
        Key::required("model", File(MODEL), "flux.1-dev", "The model; one without routed experts"),
        Key::required("workload", Map(&WORKLOAD), "{ routing: { dense: {} } }", "What is asked of it"),
    ],
};

/// Reads `tenants`: what is asked of them, and all models as one.
pub(crate) fn tenants(
    report: &mut Report,
    field: &Field<'_>,
    model: Option<Model>,
) -> (Option<Vec<Tenant>>, Option<Model>) {
    let read: Vec<_> = field.items().iter().map(|item| tenant(report, item)).collect();
    let Some(read) = read.into_iter().collect::<Option<Vec<_>>>() else { return (None, None) };
    let (tenants, models): (Vec<Tenant>, Vec<Model>) = read.into_iter().unzip();
    let layers = |model: &Model| model.layers.len();
    let all = model.as_ref().map_or(0, layers) + models.iter().map(layers).sum::<usize>();
    if all > usize::from(u16::MAX) {
        field.error(report, Wrong::new(format!("{all} layers in all"), format!("at most {}", u16::MAX)));
        return (None, None);
    }
    let beside = |model: Model, (tenant, other): (&Tenant, &Model)| model.beside(&tenant.name, other);
    let model = model.map(|model| tenants.iter().zip(&models).fold(model, beside));
    (Some(tenants), model)
}

fn tenant(report: &mut Report, field: &Field<'_>) -> Option<(Tenant, Model)> {
    let keys = field.keys(report, &TENANT)?;
    let name = keys.required(report, "name", text);
    let model = keys.need(report, "model").and_then(|field| read_model(report, &field));
    let served = keys.need(report, "workload");
    let served = served.and_then(|field| workload(report, &field, model.as_ref()).map(|read| (field, read)));
    let (field, workload) = served?;
    if !matches!(workload.routing, Routing::Dense(_)) {
        let hint = "make it the scenario's `model`: only that one may have routed experts";
        field.error(report, Wrong::new("a tenant with routed experts", hint));
        return None;
    }
    Some((Tenant { name: name?, workload }, model?))
}

/// A model by its name or path, or written out.
fn read_model(report: &mut Report, field: &Field<'_>) -> Option<Model> {
    let mut node = field.node.clone();
    resolve(report, MODEL, &mut node)?;
    if matches!(node.value, Value::Scalar(_)) {
        return None;
    }
    let at =
        node.entries().iter().find(|entry| entry.key == "model_type").map_or(node.at, |entry| entry.value.at);
    let name = report.source(at.source).stem();
    let path = if node.at.source == field.node.at.source { field.path.clone() } else { String::new() };
    import(report, &Field { node: &node, path, key_at: field.key_at }, &name).map(|imported| imported.model)
}
