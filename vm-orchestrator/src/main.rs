//! firn: the command line people use.

use clap::Parser;
use std::process::ExitCode;
use vm_orchestrator::args::Args;
use vm_orchestrator::settings::Settings;
use vm_orchestrator::{commands, interrupt, logging};

fn main() -> ExitCode {
    let args = Args::parse();
    let settings = Settings::resolve(&args.global);
    logging::start();
    let outcome = interrupt::run_until_interrupted(commands::run(&settings, args.command));
    settings.conclude(outcome)
}
