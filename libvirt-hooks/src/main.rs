//! `firn-libvirt-hook NAME OPERATION SUBOPERATION EXTRA`, the domain's XML on standard input: libvirt calls it.

use libvirt_hooks::{Call, Operation, run};
use std::io::{Read, stdin};
use std::panic::catch_unwind;
use std::process::{ExitCode, exit};
use std::thread;

/// Domains' XML has some kilobytes.
const XML_MAX: u64 = 16 << 20;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1);
    let call = Call::of(args.map(|arg| arg.to_string_lossy().into_owned()));
    // Only what keeps a domain from starting may fail: all else would end guests that run.
    let may_fail = call.operation == Operation::Prepare;
    let limit = call.limit();
    thread::spawn(move || {
        // Whatever holds it up, libvirt goes on.
        thread::sleep(limit);
        eprintln!(
            "firn: the hook has not come to an end within {} s",
            limit.as_secs()
        );
        exit(i32::from(may_fail));
    });
    let outcome = catch_unwind(|| {
        let mut xml = String::new();
        // What can't be read has no vDisks of ours in it.
        let _ = stdin().lock().take(XML_MAX).read_to_string(&mut xml);
        run(&call, &xml)
    });
    match outcome {
        Ok(Err(why)) if may_fail => {
            // libvirt shows this to whoever starts the domain.
            eprintln!("firn: {why}");
            ExitCode::FAILURE
        }
        Err(_) if may_fail => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
