//! Bytes that no client of ours would send.

use super::Served;
use control_api::types::ApiError;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Sends raw bytes, returns status and body of what comes back (0 when nothing does).
fn exchange(served: &Served, request: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(served.server.socket()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // The server may answer and hang up before it has taken everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    (
        status,
        text.split_once("\r\n\r\n")
            .map_or(String::new(), |(_, body)| body.to_owned()),
    )
}

fn request(head: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

#[test]
fn every_refusal_is_an_api_error() {
    let served = Served::new();
    let json = "content-type: application/json\r\n";
    let cases: Vec<(u16, Vec<u8>)> = vec![
        (404, request("GET /nowhere", "", "")),
        (404, request("DELETE /v1/health", "", "")),
        (404, request("GET /v1/vdisks/none", "", "")),
        (404, request("GET /v1/vdisks/none/snapshots", "", "")),
        (404, request("GET /v1/vdisks/none/snapshots/s", "", "")),
        (400, request("GET /v1/vdisks/a/snapshots/%2e%2e", "", "")),
        (400, request("GET /v1/vdisks/a/snapshots/%ff", "", "")),
        (400, request("GET /v1/vdisks/a%2fb/snapshots/s", "", "")),
        (
            400,
            request("PUT /v1/vdisks/a/snapshots/s/holds/%0a", "", ""),
        ),
        (
            400,
            request("PUT /v1/vdisks/a/snapshots/%00/holds/me", "", ""),
        ),
        (
            400,
            request(
                "POST /v1/vdisks/a/delete-snapshots",
                json,
                r#"{"names":["s"],"defer":"maybe"}"#,
            ),
        ),
        (
            400,
            request(
                "POST /v1/vdisks/a/delete-snapshots",
                json,
                r#"{"names":["s"],"differ":true}"#,
            ),
        ),
        (
            400,
            request("GET /v1/vdisks/a/snapshots/s/changes?to=%2e%2e", "", ""),
        ),
        (
            400,
            request("GET /v1/vdisks/a/snapshots/s/changes?offset=-1", "", ""),
        ),
        (
            404,
            request("GET /v1/vdisks/a/snapshots/s/changes?to=t", "", ""),
        ),
        (404, request("GET /v1/vdisks/a/snapshots/s/usage", "", "")),
        (
            400,
            request("GET /v1/vdisks/a/snapshots/s/usage?from=0", "", ""),
        ),
        (
            400,
            request(
                "GET /v1/vdisks/a/snapshots/s/data?offset=1&length=512",
                "",
                "",
            ),
        ),
        (
            400,
            request(
                "GET /v1/vdisks/a/snapshots/s/data?offset=0&length=4194816",
                "",
                "",
            ),
        ),
        (
            404,
            request(
                "GET /v1/vdisks/a/snapshots/s/data?offset=0&length=512",
                "",
                "",
            ),
        ),
        (
            400,
            request(
                "POST /v1/snapshots",
                json,
                r#"{"name":"a/b","vdisks":["a"]}"#,
            ),
        ),
        (
            400,
            request(
                "POST /v1/snapshots",
                json,
                r#"{"name":"s","vdisks":["../a"]}"#,
            ),
        ),
        (
            400,
            request("POST /v1/snapshots", json, r#"{"name":"s","vdisks":"a"}"#),
        ),
        (
            404,
            request("POST /v1/snapshots", json, r#"{"name":"s","vdisks":["a"]}"#),
        ),
        (
            400,
            request(
                "POST /v1/vdisks/a/revert",
                json,
                r#"{"snapshot":"s","keep":""}"#,
            ),
        ),
        (
            400,
            request("POST /v1/vdisks/a/revert", json, r#"{"snapshot":"-"}"#),
        ),
        (
            400,
            request(
                "POST /v1/vdisks/a/snapshots/s/clone",
                json,
                r#"{"name":"control"}"#,
            ),
        ),
        (404, request("POST /v1/store/stats", "", "")),
        (404, request("GET /v1/store/layers/7/usage", "", "")),
        (400, request("GET /v1/store/layers/-1/usage", "", "")),
        (
            400,
            request("GET /v1/store/layers/4294967296/usage", "", ""),
        ),
        (400, request("GET /v1/store/layers/%00/usage", "", "")),
        (
            400,
            request("GET /v1/store/layers/7/usage?offset=-1", "", ""),
        ),
        (400, request("GET /v1/store/layers/7/usage?from=0", "", "")),
        (404, request("GET /v1/vdisks/none/fragmentation", "", "")),
        (400, request("GET /v1/vdisks/%2e%2e/fragmentation", "", "")),
        (
            400,
            request("GET /v1/vdisks/a/fragmentation?offset=1e9", "", ""),
        ),
        (
            400,
            request(
                "GET /v1/vdisks/a/fragmentation?offset=18446744073709551616",
                "",
                "",
            ),
        ),
        (
            400,
            request("POST /v1/vdisks/a/prune", json, r#"{"keep":{"last":-1}}"#),
        ),
        (
            400,
            request("POST /v1/vdisks/a/prune", json, r#"{"keep":{"lats":1}}"#),
        ),
        (
            400,
            request("POST /v1/vdisks/a/prune", json, r#"{"dry_run":true}"#),
        ),
        (
            400,
            request(
                "POST /v1/schedules",
                json,
                r#"{"name":"s","vdisks":["a"],"every_seconds":-1,"keep":{"last":1}}"#,
            ),
        ),
        (
            400,
            request(
                "POST /v1/schedules",
                json,
                r#"{"name":"s","vdisks":["../a"],"every_seconds":1,"keep":{"last":1}}"#,
            ),
        ),
        (
            400,
            request(
                "POST /v1/schedules",
                json,
                r#"{"name":"s","vdisks":["a"],"every_seconds":1,"prefix":"a/b","keep":{}}"#,
            ),
        ),
        (
            400,
            request(
                "POST /v1/schedules",
                json,
                r#"{"name":"s","vdisks":["a"],"every_seconds":1}"#,
            ),
        ),
        (
            404,
            request(
                "POST /v1/schedules",
                json,
                r#"{"name":"s","vdisks":["a"],"every_seconds":1,"keep":{"last":1}}"#,
            ),
        ),
        (400, request("DELETE /v1/schedules/%2e%2e", "", "")),
        (404, request("DELETE /v1/schedules/s", "", "")),
        (
            404,
            request("POST /v1/vdisks/a/prune", json, r#"{"keep":{"last":1}}"#),
        ),
        (400, request("POST /v1/scrub", json, "")),
        (400, request("POST /v1/scrub", json, r#"{"rate":-1}"#)),
        (400, request("POST /v1/scrub", json, r#"{"rate":"64M"}"#)),
        (400, request("POST /v1/scrub", json, r#"{"rate":1e300}"#)),
        (400, request("POST /v1/scrub", json, r#"{"repair":true}"#)),
        (404, request("PUT /v1/scrub", json, "{}")),
        (400, request("GET /v1/vdisks/%2e%2e%2fetc", "", "")),
        (400, request("GET /v1/vdisks/%00", "", "")),
        (400, request("GET /v1/vdisks/%ff", "", "")),
        (400, request("POST /v1/vdisks", json, "")),
        (400, request("POST /v1/vdisks", json, "{")),
        (400, request("POST /v1/vdisks", json, &"[".repeat(100_000))),
        (
            400,
            request("POST /v1/vdisks", json, r#"{"name":"a","size":-1}"#),
        ),
        (
            400,
            request("POST /v1/vdisks", json, r#"{"name":"a","size":1e300}"#),
        ),
        (
            400,
            request(
                "POST /v1/vdisks",
                json,
                r#"{"name":"a","size":4096,"colour":"red"}"#,
            ),
        ),
        (
            400,
            request("POST /v1/vdisks", "", r#"{"name":"a","size":4096}"#),
        ),
        (413, request("POST /v1/vdisks", json, &" ".repeat(2 << 20))),
        (400, request("GET /v1/vdisks/a/data", "", "")),
        (
            400,
            request(
                "GET /v1/vdisks/a/data?offset=0&length=18446744073709551615",
                "",
                "",
            ),
        ),
        (
            400,
            request(
                "GET /v1/vdisks/a/data?offset=18446744073709551104&length=18446744073709551104",
                "",
                "",
            ),
        ),
        (
            400,
            request("GET /v1/vdisks/a/data?offset=1&length=512", "", ""),
        ),
        (
            400,
            request("GET /v1/vdisks/a/data?offset=0&length=0", "", ""),
        ),
        (400, request("GET /v1/vdisks/a/allocated?offset=x", "", "")),
        (
            404,
            request("PUT /v1/imports/a/data?offset=0", "", &"x".repeat(512)),
        ),
        (400, request("PUT /v1/imports/a/data?offset=0", "", "xyz")),
        (400, request("PUT /v1/imports/a/data?offset=0", "", "")),
        (
            413,
            request(
                "PUT /v1/imports/a/data?offset=0",
                "",
                &"x".repeat((4 << 20) + 512),
            ),
        ),
    ];
    for (expected, bytes) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let (status, body) = exchange(&served, &bytes);
        assert_eq!(status, expected, "{shown}\n{body}");
        let error: ApiError =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{shown}\n{body}\n{error}"));
        assert_eq!(error.kind.status(), expected, "{shown}");
    }
}

#[test]
fn noise_harms_nobody() {
    use rand::{Rng, SeedableRng};
    let served = Served::new();
    let mut random = rand::rngs::SmallRng::seed_from_u64(1);
    let seeds = [
        request(
            "PUT /v1/imports/a/data?offset=0",
            "transfer-encoding: chunked\r\n",
            "5\r\nhello\r\nffffffffffffffffff\r\n",
        ),
        request(
            "POST /v1/vdisks",
            "content-type: application/json\r\n",
            r#"{"name":"a","size":4096}"#,
        ),
        request("GET /v1/vdisks/a/data?offset=0&length=4096", "", ""),
    ];
    for round in 0..300 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..random.random_range(1..8) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..3) {
                0 => bytes[at] = random.random(),
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random.random()),
            }
        }
        let mut stream = UnixStream::connect(served.server.socket()).unwrap();
        let _ = stream.write_all(&bytes);
        // No more will come: whoever waits for the rest of a request must give up now.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(exchange(&served, &request("GET /v1/health", "", "")).0, 200);
}

#[test]
fn more_connections_than_there_is_room_for_wait() {
    let served = Served::new();
    let idle: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(served.server.socket()).unwrap())
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    drop(idle);
    assert_eq!(exchange(&served, &request("GET /v1/health", "", "")).0, 200);
}

#[test]
fn every_described_endpoint_is_served() {
    let served = Served::new();
    let document: serde_json::Value = serde_json::from_str(&crate::control::openapi()).unwrap();
    let mut count = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let path = ["{name}", "{snapshot}", "{holder}", "{layer}"]
                .iter()
                .fold(path.clone(), |path, part| path.replace(part, "none"));
            let head = format!("{} {path}", method.to_uppercase());
            let (_, body) = exchange(&served, &request(&head, "", ""));
            assert!(!body.contains("no such endpoint"), "{head}");
            count += 1;
        }
    }
    assert_eq!(count, 48);
}
