//! A process of another user gets nothing, even where the file's mode would let it in.

use super::Served;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

const SOCKET: &str = "FIRN_TEST_CONTROL_SOCKET";
const NOBODY: u32 = 65534;

/// Runs inside the other user's process; without the variable there is nothing to do.
#[test]
fn helper_asks_for_health() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let mut stream = UnixStream::connect(socket).unwrap();
    stream
        .write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    println!("ANSWER {}", answer.replace("\r\n", " "));
}

#[test]
fn another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start a process of another user");
        return;
    }
    let served = Served::new();
    // As open as can be: what is left is the check of credentials.
    std::fs::set_permissions(served.run.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(served.server.socket(), PermissionsExt::from_mode(0o777)).unwrap();
    // A copy that this user can reach, wherever the build directory is.
    let program = served.run.path().join("helper");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let ask = |uid: u32| {
        let mut helper = Command::new(&program);
        helper
            .args(["helper_asks_for_health", "--nocapture"])
            .current_dir("/")
            .env(SOCKET, served.server.socket())
            .uid(uid);
        let output = loop {
            match helper.output() {
                // A child that another test has just forked still has the copy open for writing.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now()
                }
                output => break output.unwrap(),
            }
        };
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let refused = ask(NOBODY);
    assert!(
        refused.contains("ANSWER HTTP/1.1 403") && refused.contains("\"refused\""),
        "{refused}"
    );
    let admitted = ask(0);
    assert!(admitted.contains("ANSWER HTTP/1.1 200"), "{admitted}");
}
