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

/// Open files that suffice for all connections and a few thousand containers.
const OPEN_FILES: u64 = 65_536;

fn main() -> ExitCode {
    // Foreign bytes are read by this program in a process of its own, which does nothing else.
    if brig_scan::sandbox::is_reader(std::env::args_os()) {
        return brig_scan::sandbox::reader();
    }
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
    brig_pki::install_provider();
    if flags.validate {
        if !config.tls_auto {
            app::remote(&config, None)?;
        }
        println!("configuration OK");
        return Ok(());
    }
    anyhow::ensure!(rustix::process::geteuid().is_root(), "the daemon needs to be run as root");
    let log = logging::install(config.log_level)?;
    // SECURITY: unsealed secrets pass through our memory.
    brig_sys::hardening::no_core_dumps().context("cannot turn core dumps off")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    raise_file_limit();
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

/// Lets the daemon open as many files as it may, up to what all connections can need.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, wanted, "cannot raise the limit of open files");
    }
}
