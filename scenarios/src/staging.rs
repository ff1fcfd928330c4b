//! The key `staging`: memories that hold copies of blocks whose home is elsewhere.

use crate::diagnostics::{Report, Wrong};
use crate::machine::tier_named;
use crate::reader::Field;
use policy::homes::Homes;
use policy::machine::Class;
use policy::{Machine, TierId};

/// Reads `staging`, in the order in which the tiers are asked.
pub(crate) fn staging(
    report: &mut Report,
    field: &Field<'_>,
    machine: Option<&Machine>,
) -> Option<Vec<TierId>> {
    let mut tiers = Vec::new();
    for item in field.items() {
        let Some(machine) = machine else {
            item.text(report);
            continue;
        };
        let tier = item.read(report, |text| tier_named(text, &machine.tiers))?;
        let wrong = if machine.tier(tier).class == Class::Fast {
            Wrong::new("the fast tier is what is staged for", "tiers below it, the quickest first")
        } else if tiers.contains(&tier) {
            Wrong::new("listed twice", "each tier once, the quickest first")
        } else {
            tiers.push(tier);
            continue;
        };
        item.error(report, wrong);
        return None;
    }
    Some(tiers)
}

/// Whether no tier of staged copies holds home copies too.
pub(crate) fn apart(
    report: &mut Report,
    field: Option<&Field<'_>>,
    (staging, home): (&[TierId], &Homes),
    machine: &Machine,
) -> bool {
    let both = staging.iter().find(|tier| home.tiers().contains(tier));
    if let (Some(field), Some(&tier)) = (field, both) {
        let name = &machine.tier(tier).name;
        let hint = format!("name another `home`, such as a drive, or leave {name} out");
        field.error(report, Wrong::new(format!("`{name}` holds home copies already"), hint));
    }
    both.is_none()
}
