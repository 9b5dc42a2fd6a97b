//! Idempotent requests: those that take effect once, however often they are sent.
//!
//! The first request with a key stores its response in the transaction of its effect: there is never the one without the
//! other. A repeat finds the response and is given it again. Both happen under the lock of the owner's row, so that of two
//! requests at once the later one sees nothing half done.

use chrono::TimeDelta;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Outcome;
use crate::{
    problem::Fault,
    task::{ExpectedVersion, NewTask, TaskCompletion, TaskId, min_key_retention_hours},
};

/// For how long a key is kept, by the database's clock: as long as is promised, and somewhat longer, because the one who was
/// promised it has another clock.
pub(super) const RETENTION: TimeDelta = TimeDelta::hours(min_key_retention_hours!() + 1);

/// What makes a request an idempotent one: the caller's key for it, and what was asked for.
#[derive(Debug)]
pub struct IdempotentRequest {
    key: String,
    fingerprint: Vec<u8>,
}

/// The form that a request is fingerprinted in. It stands before each fingerprint that is stored.
///
/// A retry may meet a newer version of this program than its first attempt. So a form never changes: what is added to a
/// request is left out where it is absent, and whatever else changes makes a new form, beside which the old one is kept for
/// as long as keys are.
const FORM: u8 = 1;

impl IdempotentRequest {
    /// A creation.
    #[must_use]
    pub fn create(key: String, task: &NewTask) -> Self {
        let NewTask { title, description, completed } = task;
        let mut request = json!({"operation": "createTask", "title": title});
        if let Some(description) = description {
            request["description"] = json!(description);
        }
        if let Some(completed) = completed {
            request["completed"] = json!(completed);
        }
        Self::new(key, &request)
    }

    /// A change of a task's completion.
    #[must_use]
    pub fn toggle(key: String, id: TaskId, completion: TaskCompletion, expected: &ExpectedVersion) -> Self {
        let mut request = json!({"operation": "toggleTaskCompletion", "id": id});
        if let Some(completed) = completion.completed {
            request["completed"] = json!(completed);
        }
        if let ExpectedVersion::OneOf(versions) = expected {
            request["if_match"] = json!(versions);
        }
        Self::new(key, &request)
    }

    fn new(key: String, request: &Value) -> Self {
        let digest = Sha256::digest(request.to_string());
        Self { key, fingerprint: [&[FORM], &digest[..]].concat() }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    /// Whether this request is the one that was stored with `fingerprint`. Of a form that is unknown here, written by a newer
    /// version, nothing can be told, and the key decides.
    fn is(&self, fingerprint: &[u8]) -> bool {
        fingerprint.first().is_some_and(|form| *form != FORM) || fingerprint == self.fingerprint
    }
}

/// The answer to a request whose key was found, with what is stored.
pub(super) fn replay(request: Option<&IdempotentRequest>, fingerprint: &[u8], answer: &str) -> Result<Outcome, Fault> {
    match request {
        Some(request) if request.is(fingerprint) => Outcome::replay(answer),
        _ => Err(Fault::KeyReused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Description, Title};

    /// These have been given out: a change of one is a retry that is refused after an upgrade.
    #[test]
    fn known_requests_have_known_fingerprints() {
        let hex = |request: IdempotentRequest| -> String {
            request.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let create = |description: Option<&str>, completed| {
            let description = description.map(|text| Description(text.to_owned()));
            let task = NewTask { title: Title("Water the plants".to_owned()), description, completed };
            hex(IdempotentRequest::create("key".to_owned(), &task))
        };
        let toggle = |completed, expected| {
            let id = TaskId::parse(TaskId::EXAMPLE).unwrap();
            hex(IdempotentRequest::toggle("key".to_owned(), id, TaskCompletion { completed }, &expected))
        };
        let found = [
            create(None, None),
            create(Some("The ones on the balcony, too."), Some(false)),
            toggle(None, ExpectedVersion::Any),
            toggle(Some(true), ExpectedVersion::OneOf(vec![1, 2])),
        ];
        let expected = [
            "016434c4ce550075771083d76ecd36594162e1673fd221e201345fb3ac6c4fe757",
            "01773a8724af216d9f4902aa4e6418ecd14d36ad54c76beb1e5e37efff98048f86",
            "0174f5965ae7a837cb506b68b880b4f64c88ad7304b30bb9cd34130c8d477c01cc",
            "01442efa39bd57253191e58a0d7ed302db8005c9f2da79ec7649bb200afa75c661",
        ];
        assert_eq!(found, expected);
    }
}
