//! `firn completion`: a completion script for a shell.

use crate::args::Args;
use crate::failure::Failure;
use crate::output;
use clap::CommandFactory;
use clap_complete::Shell;

pub(super) fn run(shell: Shell) -> Result<(), Failure> {
    output::print(&script(shell))
}

fn script(shell: Shell) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "firn", &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_has_one_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(
                ["vdisk", "import", "snapshot", "release", "revert", "defer"]
                    .iter()
                    .all(|word| script.contains(word)),
                "{shell}"
            );
        }
    }
}
