//! Further models on the machine, each with requests of its own.

use crate::simulate::Case;
use crate::workload::{Needs, Plan, Workload};

/// What is asked of a further model on the machine.
#[derive(Clone, Debug)]
pub struct TenantLoad {
    /// What it is called in reports.
    pub name: String,
    /// Requests, where their arrivals do not say, and what each puts out, where its length does not.
    pub requests: u32,
    /// See `requests`.
    pub tokens: u32,
    /// When they come in, and how long they are.
    pub plan: Plan,
}

impl TenantLoad {
    /// The load with these requests too.
    pub(crate) fn beside(load: Workload, tenant: &TenantLoad) -> Workload {
        let &TenantLoad { requests, tokens, .. } = tenant;
        load.beside(&Needs::Dense { requests, tokens }, &tenant.plan)
    }
}

impl Case {
    /// Whether requests come in at the moment at which others finish, those to all models.
    pub fn is_closed(&self) -> bool {
        self.arrivals.is_closed() && self.tenants.iter().all(|tenant| tenant.plan.arrivals.is_closed())
    }
}
