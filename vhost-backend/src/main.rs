//! `firn-vhost-backend`: serves the vDisks of a store until SIGTERM.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use vhost_backend::settings::Args;

fn main() -> ExitCode {
    // For the package. Not among the options, since it takes none of those that must be there.
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
    let ended = args
        .resolve()
        .map_err(|e| e.to_string())
        .and_then(|settings| vhost_backend::daemon::run(settings).map_err(|e| e.to_string()));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firn-vhost-backend: {error}");
            ExitCode::FAILURE
        }
    }
}

fn man_page() -> ExitCode {
    let page = clap_mangen::Man::new(Args::command()).section("8");
    match page.render(&mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("firn-vhost-backend: {error}");
            ExitCode::FAILURE
        }
    }
}
