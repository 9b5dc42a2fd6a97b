//! `taskpact config`

use taskpact::config::Loaded;

use super::{Failure, print};

pub(super) fn run(loaded: &Loaded) -> Result<(), Failure> {
    print(&loaded.describe())
}
