//! `firn-libvirt-hook NAME OPERATION SUBOPERATION EXTRA`, the domain's XML on standard input: libvirt calls it.

use libvirt_hooks::{Call, run};
use std::io::{Read, stdin};
use std::process::ExitCode;

/// Domains' XML has some kilobytes.
const XML_MAX: u64 = 16 << 20;

fn main() -> ExitCode {
    let call = Call::of(std::env::args().skip(1));
    let mut xml = String::new();
    // What can't be read has no vDisks of ours in it.
    let _ = stdin().lock().take(XML_MAX).read_to_string(&mut xml);
    match run(&call, &xml) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // libvirt shows this to whoever starts the domain.
            eprintln!("firn: {why}");
            ExitCode::FAILURE
        }
    }
}
