//! Who the caller is.
//!
//! Tokens come from elsewhere (Better Auth). [`Verifier`] accepts or refuses them, and it alone makes an [`Owner`]: the
//! value without which the store gives out nothing. Nothing else can make one.
//!
//! ```
//! // An owner can be named and handed on …
//! fn greet(owner: &taskpact::auth::Owner) -> String {
//!     format!("Hello {}", owner.id())
//! }
//! ```
//!
//! ```compile_fail,E0451
//! // … but not made,
//! let forged = taskpact::auth::Owner { id: "somebody else".into(), issued_at_secs: 0 };
//! ```
//!
//! ```compile_fail,E0277
//! // converted from what the caller wrote,
//! let forged: taskpact::auth::Owner = "somebody else".to_owned().into();
//! ```
//!
//! ```compile_fail,E0277
//! // or read from a request.
//! let forged: taskpact::auth::Owner = serde_json::from_str(r#""somebody else""#).unwrap();
//! ```

pub mod development;
mod jwks;
mod keys;
mod owner;
pub mod token;

pub use owner::{MAX_USER_ID_CHARS, Owner, is_user_id};
pub use token::Verifier;
pub(crate) use token::bearer_token;
