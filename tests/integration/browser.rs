//! The sample app in a real browser, through `lowport dev`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::browser::Browser;
use crate::support::room::{Dev, Room, Who, has_namespaces};
use crate::support::{folder, is_root, skipped};

/// Runs `test` in lowport's network with a browser that trusts the development authority, where there is all of that.
fn with_browser(name: &str, room: Room, test: impl AsyncFnOnce(&Dev, &mut Browser) + Send) {
    if is_root() && !has_namespaces() {
        return skipped(name, "needs namespaces");
    }
    let dev = room.dev(Who::User);
    let home = folder();
    let missing = dev.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let ca = dev.lowport.folder().join("ca.pem");
            if !trusts(home.path(), &ca) {
                return Some("there is no certutil (libnss3-tools)");
            }
            let Some(mut browser) = Browser::start(home.path()).await else {
                return Some("there is no chromium");
            };
            test(&dev, &mut browser).await;
            None
        })
    });
    if let Some(missing) = missing {
        skipped(name, missing);
    }
}

/// Does as `lowport cert trust` tells.
fn trusts(home: &Path, ca: &Path) -> bool {
    let store = home.join(".local/share/pki/nssdb");
    std::fs::create_dir_all(&store).expect("made");
    let mut command = Command::new("certutil");
    command
        .args(["-A", "-t", "C,,", "-n", "lowport dev", "-i"])
        .arg(ca)
        .arg("-d")
        .arg(format!("sql:{}", store.display()))
        .stdin(Stdio::null());
    match command.status() {
        Ok(status) => {
            assert!(status.success(), "certutil: {status}");
            true
        }
        Err(_) => false,
    }
}

#[test]
fn the_sample_works_in_a_browser() {
    let name = "the_sample_works_in_a_browser";
    with_browser(name, Room::sample(), async |dev, browser| {
        let url = format!("https://localhost:{}/", dev.lowport.https);
        browser
            .open(&url)
            .await
            .expect("the certificate is trusted");
        let navigation = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
        assert_eq!(browser.eval(navigation).await, "h2");
        assert_eq!(browser.eval("isSecureContext").await, true);

        // The page's own verdict.
        browser
            .wait("document.getElementById('verdict').dataset.verdict === 'good'")
            .await;
        browser
            .wait("document.getElementById('way-state').dataset.state === 'connected'")
            .await;

        // Server-sent events, one a second: two different ticks.
        let clock = "document.getElementById('clock').textContent";
        browser
            .wait(&format!("/\\d\\d:\\d\\d:\\d\\d/.test({clock})"))
            .await;
        let tick = browser.eval(clock).await;
        browser.wait(&format!("{clock} !== {tick}")).await;

        // A websocket, which Chromium asks for over HTTP/1.1 or, with RFC 8441, over HTTP/2.
        browser
            .wait("document.getElementById('chat-state').dataset.state === 'connected'")
            .await;
        browser
            .eval(
                "document.getElementById('chat-text').value = 'hello from here';
                 document.getElementById('chat-form').requestSubmit()",
            )
            .await;
        browser
            .wait("document.querySelector('#lines .mine')?.textContent.endsWith('hello from here')")
            .await;

        // An upload of 3 MiB, whose checksum the page compares with the app's.
        browser
            .eval(
                "const files = new DataTransfer();
                 files.items.add(new File([new Uint8Array(3 << 20).fill(7)], 'sevens.bin'));
                 document.getElementById('file').files = files.files;
                 document.getElementById('file').dispatchEvent(new Event('change'));
                 document.getElementById('upload-form').requestSubmit()",
            )
            .await;
        browser
            .wait(
                "document.getElementById('upload-facts').textContent.includes('the same as here')",
            )
            .await;
        let facts = browser
            .eval("document.getElementById('upload-facts').textContent")
            .await;
        let facts = facts.as_str().unwrap();
        assert!(
            facts.contains("3,145,728") && !facts.contains("NOT"),
            "{facts}"
        );
        assert!(browser.problems().is_empty(), "{:?}", browser.problems());
    });
}

#[test]
fn a_crash_page_reloads_itself_until_the_app_is_mended() {
    let name = "a_crash_page_reloads_itself_until_the_app_is_mended";
    let room = Room::script("console.error('no <database>'); process.exit(3);");
    with_browser(name, room, async |dev, browser| {
        let url = format!("https://localhost:{}/", dev.lowport.https);
        browser.open(&url).await.expect("a page");
        browser
            .wait("document.querySelector('pre')?.textContent === 'no <database>'")
            .await;
        let text = browser.eval("document.body.innerText").await;
        assert!(
            text.as_str().unwrap().contains("exited with code 3"),
            "{text}"
        );
        // It has looked twice and found nothing new: what may be read or copied just now stays where it is.
        browser.eval("window.untouched = true").await;
        browser
            .wait("performance.getEntriesByType('resource').length >= 2")
            .await;
        assert_eq!(browser.eval("window.untouched").await, true);
        dev.room.write(
            "server.js",
            "require('http').createServer((q, r) => {
               r.setHeader('content-type', 'text/html');
               r.end('<title>x</title><p id=mended>mended');
             }).listen(process.env.PORT, process.env.HOST);",
        );
        // Nobody presses a key.
        browser.wait("document.getElementById('mended')").await;
    });
}

#[test]
fn an_authority_that_is_not_trusted_is_refused() {
    let name = "an_authority_that_is_not_trusted_is_refused";
    with_browser(name, Room::sample(), async |dev, browser| {
        let other = folder();
        let mut stranger = Browser::start(other.path()).await.expect("as before");
        let url = format!("https://localhost:{}/health", dev.lowport.https);
        let error = stranger.open(&url).await.unwrap_err();
        assert_eq!(error, "net::ERR_CERT_AUTHORITY_INVALID");
        browser.open(&url).await.expect("it is trusted");
        // The addresses are in the certificate, too.
        for host in ["127.0.0.1", "[::1]"] {
            let url = format!("https://{host}:{}/health", dev.lowport.https);
            browser.open(&url).await.expect("it is trusted");
        }
    });
}
