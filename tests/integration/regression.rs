//! A test for each bug that was found otherwise.

use bytes::Bytes;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::support::client;
use crate::support::lowport::Setup;
use crate::support::{Lowport, raw, skipped};

#[tokio::test]
async fn an_answer_that_comes_before_the_body_resets_no_stream() {
    let lowport = Lowport::start("[[route]]\nrespond = \"early\"\n");
    let stream = client::tls(lowport.https, "localhost", &[b"h2"]).await;
    let (client, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut ping = connection.ping_pong().expect("the only one");
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let asked = http::Request::post("https://localhost/").body(()).unwrap();
    let (response, mut send) = client.send_request(asked, false).unwrap();
    let mut body = response.await.unwrap().into_body();
    while let Some(data) = body.data().await {
        data.unwrap();
    }
    // What comes after the whole answer is still taken.
    send.send_data(Bytes::from_static(b"late"), true).unwrap();
    ping.ping(h2::Ping::opaque()).await.unwrap();
    let reset = std::future::poll_fn(|cx| std::task::Poll::Ready(send.poll_reset(cx))).await;
    assert!(
        reset.is_pending() || matches!(reset, std::task::Poll::Ready(Err(_))),
        "{reset:?}"
    );
}

#[test]
fn a_refusal_reaches_a_client_that_has_much_to_send() {
    let lowport = Lowport::start("[[route]]\nrespond = \"no\"\nstatus = 403\n");
    // More than the kernel's buffers would hide, less than lowport reads for the sake of the answer.
    let body = "x".repeat(200_000);
    let asked = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..10 {
        let answer = raw::exchange(lowport.http, &asked);
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.ends_with("no"),
            "{answer}"
        );
    }
}

#[test]
fn the_number_of_workers_is_not_counted_anew_where_it_cannot_be() {
    let here = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let processors: Vec<usize> = (0..CpuSet::count())
        .filter(|processor| here.is_set(*processor).unwrap())
        .collect();
    if processors.len() < 2 {
        return skipped(
            "the_number_of_workers_is_not_counted_anew",
            "needs two processors",
        );
    }
    let lowport = Lowport::with(&Setup {
        server: "# As many workers as there are processors.\nredirect_to_https = false",
        rest: "[[route]]\nrespond = \"x\"\n",
        args: &[],
    });
    // The sandbox hides a container's share, so lowport cannot know what it is now.
    let mut one = CpuSet::new();
    one.set(processors[0]).unwrap();
    sched_setaffinity(Pid::from_raw(lowport.pid() as i32), &one).unwrap();
    lowport.signal(Signal::SIGHUP);
    lowport.wait_for(" reloaded ");
    let output = lowport.output().join("\n");
    assert!(!output.contains("server.workers has changed"), "{output}");
}
