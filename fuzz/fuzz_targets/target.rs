//! Hosts and targets: reading a normal form again changes nothing, and nothing that is no host or path comes out.
#![no_main]

use http::{Request, Version};
use libfuzzer_sys::fuzz_target;
use lowport::http::{host, target};

fuzz_target!(|text: &str| {
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    read_host(first);
    normalise(first);
    strip(first, second);
    request(first, second);
});

fn read_host(text: &str) {
    let Ok(host) = host::parse(text) else {
        return;
    };
    assert_eq!(host.raw, text);
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    assert!(host.raw.bytes().all(harmless));
    assert!(!host.name.bytes().any(|byte| byte.is_ascii_uppercase()));
    let again = host::parse(&host.name).expect("a name is a host");
    assert_eq!((&again.name, again.port), (&host.name, None));
    assert_eq!(host.name.is_empty(), text.is_empty(), "only none is none");
}

fn normalise(path: &str) {
    let normal = target::normalise(path);
    assert_eq!(target::normalise(&normal), normal);
    if path.starts_with('/') {
        assert!(normal.starts_with('/') && !normal.contains("//") && !normal.contains('\\'));
        assert!(
            !normal
                .split('/')
                .any(|segment| matches!(segment, "." | ".."))
        );
    }
}

fn strip(path: &str, prefix: &str) {
    let prefix = prefix.trim_end_matches('/');
    let below = path
        .strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
    let wanted = below.map(|rest| match rest.starts_with('/') {
        true => rest.to_owned(),
        false => format!("/{rest}"),
    });
    assert_eq!(
        target::strip_prefix(path, prefix).map(|rest| rest.into_owned()),
        wanted
    );
}

fn request(target: &str, field: &str) {
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let request = Request::builder().version(version).uri(target);
        let Ok(request) = request.header("host", field).body(()) else {
            continue;
        };
        let _ = target::check(&request);
        if let Ok(host) = host::of(&request) {
            let asked = request.uri().authority().map_or(field, |it| it.as_str());
            assert_eq!(host.raw, asked);
        }
    }
}
