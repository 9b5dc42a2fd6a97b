//! The proof that the caller may touch one user's data.

use std::sync::Arc;

/// The longest user id, in characters.
pub const MAX_USER_ID_CHARS: usize = 255;

/// A user whose token has been verified. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// The user's id: the subject of the token, as the issuer wrote it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0
    }

    /// The owner that a token speaks for. To be called where a token has been verified, and nowhere else.
    pub(super) fn verified(user_id: String) -> Self {
        Self(user_id.into())
    }
}

/// Whether `text` can be a user's id.
#[must_use]
pub fn is_user_id(text: &str) -> bool {
    // PostgreSQL can't keep NUL.
    (1..=MAX_USER_ID_CHARS).contains(&text.chars().count()) && !text.contains('\0')
}
