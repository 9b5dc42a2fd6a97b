//! What tokens are verified with, for those commands that need it: what is set, or a secret for development.

use std::path::Path;

use taskpact::{
    auth::development,
    config::{Auth, Config, Development, Unusable},
};

use super::Failure;

/// What tokens are verified with, and whether it is a secret of our own, for development.
pub(super) fn effective(config: &Config) -> Result<(Auth, bool), Failure> {
    if config.auth.is_set() {
        return Ok((config.auth.clone(), false));
    }
    let allowed = match config.auth.development {
        Development::Never => false,
        Development::Loopback => config.server.is_loopback(),
        Development::Anywhere => true,
    };
    if allowed {
        let secret = development::secret(Path::new(".")).map_err(Failure::DevelopmentSecret)?;
        return Ok((Auth { secret: Some(secret), ..config.auth.clone() }, true));
    }
    Err(Failure::Settings(Unusable(format!(
        "no secret is set, so no token could be accepted. Set BETTER_AUTH_SECRET to the secret that Better Auth signs \
         with, or `auth.jwks_url` to where it publishes its keys. (Development mode, with a secret of its own, is for a \
         loopback address such as 127.0.0.1: `server.host` is `{}`. `auth.development` says where it is allowed.)",
        config.server.host
    ))))
}
