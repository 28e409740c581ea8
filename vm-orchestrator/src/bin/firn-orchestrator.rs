//! `firn-orchestrator`: what libvirt and the backend have to do with one another, until SIGTERM.

use clap::{CommandFactory, Parser};
use std::path::PathBuf;
use std::process::ExitCode;
use vm_orchestrator::orchestrator::{self, Settings};

/// Snapshots, reverts and clones libvirt's domains whose disks are Firn's vDisks
#[derive(Debug, Parser)]
#[command(name = "firn-orchestrator", version)]
struct Args {
    /// The backend's runtime directory; the API's socket is made there too
    #[arg(long, value_name = "DIR", env = "FIRN_RUN", default_value = control_api::DEFAULT_RUN)]
    run: PathBuf,
    /// Directory of the journal; it is created if it does not exist
    #[arg(long, value_name = "DIR", default_value = "/var/lib/firn/orchestrator")]
    state: PathBuf,
    /// libvirt's URI
    #[arg(long, value_name = "URI", default_value = "qemu:///system")]
    connect: String,
}

fn main() -> ExitCode {
    // For the package.
    if std::env::args_os().skip(1).eq(["--man"]) {
        return man_page();
    }
    let args = Args::parse();
    // RUST_LOG changes what is logged; journald adds the time itself.
    let environment = env_logger::Env::default().default_filter_or("info");
    let mut logger = env_logger::Builder::from_env(environment);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        logger.format_timestamp(None);
    }
    logger.init();
    let settings = Settings {
        run: std::path::absolute(&args.run).unwrap_or(args.run),
        state: args.state,
        connect: args.connect,
    };
    match orchestrator::run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firn-orchestrator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn man_page() -> ExitCode {
    let page = clap_mangen::Man::new(Args::command()).section("8");
    match page.render(&mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firn-orchestrator: {error}");
            ExitCode::FAILURE
        }
    }
}
