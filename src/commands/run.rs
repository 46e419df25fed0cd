//! `run`: the daemon.

use std::sync::Arc;

use crate::app::{self, Exit};
use crate::cli::Options;
use crate::config::Config;
use crate::os::systemd::Unit;
use crate::reload::Load;

/// Runs the daemon.
pub(super) fn run(options: &Options) -> Exit {
    let sources = app::sources(options);
    let unit = Unit::new(&sources);
    let of_load = sources.clone();
    let load: Load = Arc::new(move || Config::load(&of_load));
    app::serve(
        async || Ok(load),
        unit,
        options.socket.systemd_socket,
        &|problems| app::misconfigured_daemon(&sources, problems),
        &|_, _| {},
    )
}
