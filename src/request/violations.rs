//! Everything in a request that breaks the contract, told at once.
//!
//! poem-openapi extracts one argument of an operation after the other and stops at the first that fails. So what breaks the
//! contract does not fail there: it is noted down in the request, and the extractor keeps an empty value. An operation gets
//! at a value only by [`Checked::get`], which refuses the request as long as anything in it is noted down.

use std::sync::{Arc, Mutex};

use poem::Request;

use crate::problem::{Fault, Violation};

/// What has been found wrong so far in one request. The server's edge gives every request one, as its data. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Violations(Arc<Mutex<Vec<Violation>>>);

impl Violations {
    pub(super) fn of(request: &Request) -> Result<Self, Fault> {
        request.data().cloned().ok_or_else(|| Fault::defect("the request has no list of violations"))
    }

    pub(super) fn add(&self, violations: impl IntoIterator<Item = Violation>) {
        self.0.lock().expect("nothing panics with it").extend(violations);
    }

    fn none(&self) -> Result<(), Fault> {
        let found = self.0.lock().expect("nothing panics with it");
        if found.is_empty() { Ok(()) } else { Err(Fault::InvalidRequest(found.clone())) }
    }
}

/// A value that has been extracted, or why there is none.
#[derive(Debug)]
pub(super) struct Checked<T> {
    value: Result<T, Fault>,
    violations: Violations,
}

impl<T> Checked<T> {
    pub(super) fn new(value: Result<T, Fault>, violations: Violations) -> Self {
        Self { value, violations }
    }

    /// Notes down what is wrong with a value, if it is.
    pub(super) fn unless_broken(value: Result<T, Vec<Violation>>, violations: Violations) -> Self {
        let value = value.map_err(|found| {
            violations.add(found);
            Fault::defect("a violation was not told")
        });
        Self { value, violations }
    }

    /// The value, if nothing at all in the request breaks the contract.
    pub(super) fn get(self) -> Result<T, Fault> {
        self.violations.none()?;
        self.value
    }
}
