//! The contracts that were released, which stay published.

/// They, by version: the files in `contracts`, to which `just release-contract` adds one. A test sees to it that none is left
/// out here.
pub const RELEASED: &[(&str, &str)] = &[];
