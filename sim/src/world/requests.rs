//! Requests as they come: at times of their own, or when their client's last one is finished.

use super::{Tick, World};
use crate::queue::Rank;
use crate::workload::Request;
use policy::RequestId;

impl World {
    /// The same, with requests coming in.
    pub fn asked(mut self) -> World {
        (0..self.next_request.len()).for_each(|tenant| self.expect_request(tenant));
        self
    }

    /// The requests of the run, in order of arrival.
    pub fn requests(&self) -> &[Request] {
        self.workload.requests()
    }

    /// Where the gate weights come from.
    pub fn gates(&self) -> &'static str {
        self.workload.gates()
    }

    /// The first request of a tenant that is not in the queue yet.
    fn next_of(&self, tenant: usize) -> Option<usize> {
        let next = self.next_request[tenant];
        self.workload.tenants()[tenant].contains(&next).then_some(next)
    }

    /// Puts the next request with a time of its own into the queue: they come in order.
    pub(super) fn expect_request(&mut self, tenant: usize) {
        let Some(next) = self.next_of(tenant) else { return };
        if let Some(at) = self.workload.requests()[next].at {
            self.next_request[tenant] += 1;
            self.queue.push(at, Rank::Admission, Tick::Request(RequestId(next as u32)));
        }
    }

    /// A closed client sends its next request when one is finished, and it has thought.
    pub(super) fn finish(&mut self, request: RequestId) {
        let tenant = usize::from(self.workload.requests()[request.index()].tenant);
        let Some(next) = self.next_of(tenant) else { return };
        if let Some(at) = self.workload.sent_after(next, self.now) {
            self.next_request[tenant] += 1;
            self.queue.push(at, Rank::Admission, Tick::Request(RequestId(next as u32)));
        }
    }
}
