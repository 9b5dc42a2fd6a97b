//! `taskpact token`

use std::{env, time::Duration};

use clap::Args;
use taskpact::{
    auth::{development, token},
    config::Config,
};

use super::{Failure, auth, print, user_id};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The user's id: the token's subject
    #[arg(long, value_name = "ID", value_parser = user_id)]
    user: String,
    /// For how long the token is valid, such as `15m`, `1h` or `7d`
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

pub(super) fn run(config: &Config, arguments: &Arguments) -> Result<(), Failure> {
    let (settings, is_development) = auth::effective(config)?;
    if is_development {
        let here = env::current_dir().unwrap_or_default();
        eprintln!(
            "signed with the development secret in {}. A server that was started in another directory has another one",
            here.join(development::FILE).display()
        );
    }
    print(&(token::mint(&settings, &arguments.user, arguments.ttl)? + "\n"))
}
