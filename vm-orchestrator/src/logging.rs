//! Log lines of the libraries below us: silent unless `FIRN_LOG` asks for them.

/// Sends log lines to standard error as `FIRN_LOG` says (`error`, `warn`, `info`, `debug`; default `error`).
pub fn start() {
    let filter = env_logger::Env::default().filter_or("FIRN_LOG", "error");
    // A second start within one process (tests) changes nothing.
    let _ = env_logger::Builder::from_env(filter).try_init();
}
