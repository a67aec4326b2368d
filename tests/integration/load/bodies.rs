//! Large bodies, fast and slow.

use super::{GROWTH, grown, report, size};
use crate::support::client::curl;
use crate::support::{Lowport, Node};

/// The default of 64 MiB is for uploads that nobody expects.
const NO_LIMIT: &str = "[limits]\nrequest_body = 0\n";

#[test]
fn bodies_of_any_size_pass_in_constant_memory() {
    let bytes: u64 = size(300_000_000, 10_000_000_000);
    let node = Node::start();
    let lowport = Lowport::start(&format!("{NO_LIMIT}{}", node.route()));
    // Whatever is allocated once, and how far a buffer grows, shows with a body of a few MB already.
    for url in urls(&lowport, "/download?bytes=4000000") {
        curl(&lowport, &url.0, &[url.1, "-o/dev/null"]);
    }
    let before = lowport.memory();
    let patient = ["--max-time", "900"];
    for (url, version) in urls(&lowport, &format!("/download?bytes={bytes}")) {
        let args = [
            version,
            "-o/dev/null",
            "-w%{size_download} %{time_total}",
            patient[0],
            patient[1],
        ];
        let got = curl(&lowport, &url, &args);
        let (size, seconds) = got.split_once(' ').expect("two figures");
        assert_eq!(size, bytes.to_string(), "{version}");
        tell(&lowport, before, "download", version, bytes, seconds);
    }
    let body = lowport.folder().join("body");
    std::fs::File::create(&body)
        .and_then(|file| file.set_len(bytes))
        .expect("a sparse file");
    let body = body.to_str().expect("UTF-8");
    for (url, version) in urls(&lowport, "/upload") {
        let args = [
            version,
            "-XPOST",
            "-T",
            body,
            "-w%{time_total}",
            patient[0],
            patient[1],
        ];
        let got = curl(&lowport, &url, &args);
        let (json, seconds) = got.split_at(got.rfind('}').expect("JSON") + 1);
        let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(json["bytes"], bytes, "{version}");
        tell(&lowport, before, "upload", version, bytes, seconds.trim());
    }
}

#[test]
fn an_app_that_reads_late_gets_all_of_an_upload_and_nothing_piles_up() {
    let bytes: u64 = 150_000_000;
    let node = Node::start();
    let lowport = Lowport::start(&format!("{NO_LIMIT}{}", node.route()));
    let body = lowport.folder().join("body");
    std::fs::File::create(&body)
        .and_then(|file| file.set_len(bytes))
        .expect("a sparse file");
    let body = body.to_str().expect("UTF-8");
    for (url, version) in urls(&lowport, "/upload?delay=500") {
        let before = lowport.memory();
        // Without Expect, the body follows the head at once and meets an app that does not read.
        let got = curl(
            &lowport,
            &url,
            &[version, "-XPOST", "-HExpect:", "-T", body],
        );
        let json: serde_json::Value = serde_json::from_str(&got).expect("JSON");
        assert_eq!(json["bytes"], bytes, "{version}");
        grown(&lowport, before, version);
    }
}

/// Plain HTTP/1.1 and HTTP/2 over TLS.
fn urls(lowport: &Lowport, path: &str) -> [(String, &'static str); 2] {
    [
        (
            format!("http://localhost:{}{path}", lowport.http),
            "--http1.1",
        ),
        (
            format!("https://localhost:{}{path}", lowport.https),
            "--http2",
        ),
    ]
}

fn tell(lowport: &Lowport, before: u64, what: &str, version: &str, bytes: u64, seconds: &str) {
    let what = format!("{what} {version}");
    let growth = grown(lowport, before, &what);
    let seconds: f64 = seconds.parse().expect("seconds");
    let (mb, rate) = (bytes / 1_000_000, bytes as f64 / 1e6 / seconds);
    report(
        &what,
        &format!("{mb} MB at {rate:.0} MB/s, grew by {growth} KiB of {GROWTH}"),
    );
}
