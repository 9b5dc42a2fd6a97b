//! What a request carries, extracted and checked: the owner, parameters, conditional headers, the body.
//!
//! These are the extractors that operations take, instead of poem-openapi's own of the same names: these refuse in our
//! problem types, name what was wrong, and hold bodies against the published schema. What the document says reaches them
//! as data ([`Validators`]); they know neither the document nor the operations.

mod body;
mod conditional;
mod idempotency_key;
mod owner;
mod paging;
mod parameter;
mod presence;
mod violations;

pub use body::{Body, OptionalBody, Validators};
pub(crate) use conditional::A_PAGE;
pub use conditional::{IfMatch, IfNoneMatch};
pub use idempotency_key::IdempotencyKey;
pub use paging::{Known, Limit, Wait};
pub(crate) use parameter::query_pairs;
pub use parameter::{Broken, Header, Parameter, Path, PathParameter, Query};
pub use presence::Presence;
pub use violations::Violations;
