//! The daemon's process: log, crypto provider, hardening, configuration, run.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use brigd::cli::Flags;
use brigd::config::Config;
use brigd::{app, logging, notify, purge};
use clap::Parser as _;

/// Time for blocking work that is still under way when everything else has ended.
const BLOCKING_GRACE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("brigd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    if flags.validate {
        println!("configuration OK");
        return Ok(());
    }
    anyhow::ensure!(rustix::process::geteuid().is_root(), "the daemon needs to be run as root");
    let log = logging::install(config.log_level)?;
    brig_pki::install_provider();
    // SECURITY: unsealed secrets pass through our memory.
    brig_sys::hardening::no_core_dumps().context("cannot turn core dumps off")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let sockets = notify::handed_over();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = match flags.purge {
        true => runtime.block_on(purge::run(config)),
        false => runtime.block_on(app::run(flags, config, &log, sockets)),
    };
    runtime.shutdown_timeout(BLOCKING_GRACE);
    outcome
}
