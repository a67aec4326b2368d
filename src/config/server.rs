//! `[server]`, `[log]` and `[[certificate]]`.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::OnceLock;

use super::keys::{self, nearest};
use super::table::{Placed, Table};
use super::values::{self, Wrong};
use super::{
    AccessLog, CertificateFiles, Layer, Listener, Log, LogFormat, Mistake, Sandbox, Server, User,
};

/// Where plaintext is listened for when nothing is written.
const HTTP: [&str; 2] = ["0.0.0.0:80", "[::]:80"];

/// Where TLS is listened for when there is a certificate and nothing is written.
const HTTPS: [&str; 2] = ["0.0.0.0:443", "[::]:443"];

/// Who the proxy becomes when nothing is written.
const USER: &str = "lowport";

/// `[server]`. `certificates` tells whether there are any.
pub(super) fn server(top: &Table<'_>, certificates: bool) -> Server {
    let table = top.table("server", &keys::SERVER);
    let http = listeners(&table, "http").unwrap_or_else(|| defaults(&HTTP));
    let https = listeners(&table, "https");
    if let Some(listener) = https.iter().flatten().next()
        && !certificates
    {
        table.reader.absent(
            Mistake::new(listener.span.clone(), "TLS needs a certificate")
                .label("there is no [[certificate]] in this file")
                .help("add [[certificate]] with `cert` and `key`, or take `https` out"),
        );
    }
    let https = match certificates {
        true => https.unwrap_or_else(|| defaults(&HTTPS)),
        false => https.unwrap_or_default(),
    };
    distinct(&table, &http, &https);
    let no_https = https.is_empty() && (!table.has("https") || table.is_empty_list("https"));
    if table.is_empty_list("http") && no_https {
        table.reader.push(
            Mistake::new(table.value("http"), "there is no address to listen on")
                .help("leave `http` out for port 80, or add a [[certificate]] for port 443"),
        );
    }
    let trusted = table.list("trusted_proxies", values::network);
    let proxy_protocol = table.flag("proxy_protocol").unwrap_or(false);
    if proxy_protocol && (!table.has("trusted_proxies") || table.is_empty_list("trusted_proxies")) {
        let mistake = Mistake::new(
            table.key("proxy_protocol"),
            "`proxy_protocol` needs `trusted_proxies`",
        );
        let help = "name the proxies that begin connections with it, such as trusted_proxies = [\"10.0.0.0/8\"]: from anybody else \
                    it would be a way to be somebody else";
        table.missing_one(&["trusted_proxies"], mistake.help(help));
    }
    Server {
        http,
        https,
        redirect_to_https: table.flag("redirect_to_https").unwrap_or(true),
        user: user(&table).unwrap_or_else(|| User {
            name: USER.to_owned(),
            span: None,
        }),
        workers: match table.number("workers", 1..=1024) {
            Some(workers) => workers.value as usize,
            None => cores(),
        },
        trusted_proxies: values_of(trusted.unwrap_or_default()),
        proxy_protocol,
        splice: table.flag("splice").unwrap_or(true),
    }
}

/// As many as there are cores, 1024 at most. Counted once: a sandbox takes away what the limits of a container are read
/// from, and a reload would find more.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    let count = || std::thread::available_parallelism().map_or(1, NonZero::get);
    *CORES.get_or_init(|| count().min(1024))
}

/// The key `user`.
pub(super) fn user(table: &Table<'_>) -> Option<User> {
    let user = table.scalar("user", "a name or a uid", values::user)?;
    Some(User {
        name: user.value,
        span: Some(user.span),
    })
}

fn values_of<T>(list: Vec<Placed<T>>) -> Vec<T> {
    list.into_iter().map(|placed| placed.value).collect()
}

fn listeners(table: &Table<'_>, key: &str) -> Option<Vec<Listener>> {
    let list = table.list(key, values::listen)?;
    let each = |Placed { value, span }: Placed<Vec<SocketAddr>>| {
        value.into_iter().map(move |addr| Listener {
            addr,
            span: Some(span.clone()),
        })
    };
    Some(list.into_iter().flat_map(each).collect())
}

fn defaults(list: &[&str]) -> Vec<Listener> {
    list.iter()
        .filter_map(|text| text.parse().ok())
        .map(|addr| Listener { addr, span: None })
        .collect()
}

/// Reports addresses that are listened on twice.
fn distinct(table: &Table<'_>, http: &[Listener], https: &[Listener]) {
    let all: Vec<&Listener> = http.iter().chain(https).collect();
    for (at, later) in all.iter().enumerate() {
        let Some(earlier) = all[..at].iter().find(|earlier| earlier.addr == later.addr) else {
            continue;
        };
        let message = format!("{} is listened on twice", later.addr);
        // At least one of the two was written: the defaults differ from each other.
        let mistake = match (&earlier.span, &later.span) {
            (Some(_), None) => Mistake::new(earlier.span.clone(), message)
                .label("`https` has it by default")
                .help("write `https` too, with other addresses, or choose another port here"),
            (None, _) => Mistake::new(later.span.clone(), message)
                .label("`http` has it by default")
                .help("write `http` too: `http = []` for TLS only"),
            (Some(_), Some(_)) => Mistake::new(later.span.clone(), message)
                .label("again here")
                .other(earlier.span.clone(), "first here")
                .help("take one of the two out"),
        };
        table.reader.push(mistake);
    }
}

/// `[log]`
pub(super) fn log(top: &Table<'_>) -> Log {
    let table = top.table("log", &keys::LOG);
    let access = table.parsed("access", |text| match text {
        "off" => Ok(AccessLog::Off),
        "stdout" => Ok(AccessLog::Stdout),
        "stderr" => Ok(AccessLog::Stderr),
        // So that a slip is not taken for a file.
        path if path.contains('/') && !path.ends_with('/') => {
            Ok(AccessLog::File(table.reader.path(path)))
        }
        path => Err(Wrong::new(
            "this is not \"off\", \"stdout\", \"stderr\" or a path with a slash",
            match nearest(path, ["off", "stdout", "stderr"]) {
                Some(nearest) => format!("did you mean \"{nearest}\"?"),
                None => format!("for a file write \"./{}\"", path.trim_end_matches('/')),
            },
        )),
    });
    let format = table.parsed("format", |text| match text {
        "combined" => Ok(LogFormat::Combined),
        "json" => Ok(LogFormat::Json),
        _ => Err(Wrong::new(
            "there is no such format",
            "write \"combined\" or \"json\"",
        )),
    });
    Log {
        access: access.map_or(AccessLog::Stdout, |access| access.value),
        format: format.map_or(LogFormat::Combined, |format| format.value),
    }
}

/// `[sandbox]`
pub(super) fn sandbox(top: &Table<'_>) -> Sandbox {
    let table = top.table("sandbox", &keys::SANDBOX);
    let ports = |key| {
        let ports = table.scalars(key, "a port or a list of ports", |text| {
            let port = text.parse().ok().filter(|port: &u16| *port != 0);
            port.ok_or_else(|| Wrong::new("this is no port", "ports are 1 to 65535: write 3001"))
        });
        values_of(ports.unwrap_or_default())
    };
    let read = table.list("read", path).unwrap_or_default();
    let allowed = table.list("allow_degraded", |text| match text {
        "landlock" => Ok(Layer::Landlock),
        "seccomp" => Ok(Layer::Seccomp),
        _ => Err(Wrong::new(
            "there is no such layer",
            "write \"landlock\" or \"seccomp\"",
        )),
    });
    Sandbox {
        connect: ports("connect"),
        bind: ports("bind"),
        read: read
            .into_iter()
            .map(|folder| (table.reader.path(folder.value), Some(folder.span)))
            .collect(),
        allow_degraded: values_of(allowed.unwrap_or_default()),
    }
}

/// `[[certificate]]`: those that are whole, and whether there are any at all.
pub(super) fn certificates(top: &Table<'_>) -> (Vec<CertificateFiles>, bool) {
    let tables = top.tables("certificate", &keys::CERTIFICATE);
    let any = top.has("certificate");
    let each = |table: Table<'_>| {
        if !table.has("cert") {
            table.missing(
                "cert",
                "a PEM file: the chain, the server's own certificate first",
            );
        }
        if !table.has("key") {
            table.missing("key", "a PEM file: the private key of `cert`");
        }
        let (cert, key) = (file(&table, "cert"), file(&table, "key"));
        let (cert, key) = (cert?, key?);
        Some(CertificateFiles {
            cert: table.reader.path(cert.value),
            cert_span: Some(cert.span),
            key: table.reader.path(key.value),
            key_span: Some(key.span),
        })
    };
    (tables.into_iter().filter_map(each).collect(), any)
}

/// The name of a file.
pub(super) fn file<'a>(table: &Table<'a>, key: &str) -> Option<Placed<&'a str>> {
    table.parsed(key, path)
}

fn path(text: &str) -> Result<&str, Wrong> {
    match text {
        "" => Err(Wrong::new("this is empty", "write the path of a file")),
        text if text.contains('\0') => Err(Wrong::new("no path holds a zero byte", "")),
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mistakes, parsed};
    use super::*;

    const ROUTE: &str = "[[route]]\nto = \"http://127.0.0.1:3000\"\n";

    fn addresses(list: &[Listener]) -> String {
        let list: Vec<String> = list
            .iter()
            .map(|listener| listener.addr.to_string())
            .collect();
        list.join(" ")
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = parsed(ROUTE);
        let server = config.server;
        assert_eq!(addresses(&server.http), "0.0.0.0:80 [::]:80");
        assert!(server.http.iter().all(|listener| listener.span.is_none()));
        assert!(server.https.is_empty() && server.redirect_to_https);
        assert_eq!(server.user.name, "lowport");
        assert!(server.workers >= 1 && server.trusted_proxies.is_empty());
        assert_eq!(config.log.access, AccessLog::Stdout);
        assert_eq!(config.log.format, LogFormat::Combined);
    }

    #[test]
    fn a_certificate_brings_port_443() {
        let certificate = "[[certificate]]\ncert = \"a.pem\"\nkey = \"/k/a.key\"\n";
        let config = parsed(&format!("{ROUTE}{certificate}"));
        assert_eq!(addresses(&config.server.https), "0.0.0.0:443 [::]:443");
        let files = &config.certificates[0];
        assert_eq!(files.cert, std::path::Path::new("/etc/x/a.pem"));
        assert_eq!(files.key, std::path::Path::new("/k/a.key"));
        let config = parsed(&format!("[server]\nhttps = []\n{ROUTE}{certificate}"));
        assert!(config.server.https.is_empty());
    }

    #[test]
    fn a_sandbox_names_what_a_reload_may_bring() {
        let none = parsed(ROUTE).sandbox;
        assert_eq!(none, Sandbox::default());
        let text = "[sandbox]\nconnect = \"1\"\nbind = [2, \"3\"]\nread = [\"a\", \"/b\"]\n";
        let sandbox = parsed(&format!("{text}{ROUTE}")).sandbox;
        assert_eq!((sandbox.connect, sandbox.bind), (vec![1], vec![2, 3]));
        let read: Vec<_> = sandbox.read.into_iter().map(|(folder, _)| folder).collect();
        assert_eq!(read, ["/etc/x/a", "/b"].map(std::path::PathBuf::from));
        let told = mistakes(&format!("[sandbox]\nbind = \"0\"\nread = \"\"\n{ROUTE}"));
        assert!(told.contains("no port") && told.contains("empty"), "{told}");
    }

    #[test]
    fn what_is_written_is_taken() {
        let config = parsed(&format!(
            "[server]\nhttp = \":8080\"\nuser = 1000\nworkers = 3\nredirect_to_https = false\n\
             trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\nproxy_protocol = false\n\
             [log]\naccess = \"./a.log\"\nformat = \"json\"\n{ROUTE}"
        ));
        assert_eq!(addresses(&config.server.http), "0.0.0.0:8080 [::]:8080");
        assert_eq!(
            (config.server.user.name.as_str(), config.server.workers),
            ("1000", 3)
        );
        assert!(!config.server.redirect_to_https);
        assert!(config.server.trusts("10.1.2.3".parse().unwrap()));
        assert!(!config.server.trusts("11.1.2.3".parse().unwrap()));
        assert!(!config.server.introduces("10.1.2.3".parse().unwrap()));
        assert_eq!(config.log.access, AccessLog::File("/etc/x/./a.log".into()));
        assert_eq!(config.log.format, LogFormat::Json);
    }

    #[test]
    fn trusted_proxies_alone_introduce_their_clients() {
        let server = |lines: &str| parsed(&format!("[server]\n{lines}\n{ROUTE}")).server;
        let trusted = "trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::/32\"]";
        let on = server(&format!("proxy_protocol = true\n{trusted}"));
        for (peer, introduces) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::1", true),
            ("11.1.2.3", false),
            ("2001:db9::1", false),
        ] {
            let peer = peer.parse().unwrap();
            assert_eq!(on.introduces(peer), introduces, "{peer}");
            assert!(!server(trusted).introduces(peer), "{peer}");
        }
    }

    #[test]
    fn ports_are_numbers_or_texts() {
        for (written, ports) in [
            ("3001", &[3001][..]),
            ("\"3001\"", &[3001]),
            ("[3001, \"3002\", 3003]", &[3001, 3002, 3003]),
            ("[]", &[]),
        ] {
            let config = parsed(&format!("[sandbox]\nconnect = {written}\n{ROUTE}"));
            assert_eq!(config.sandbox.connect, ports, "{written}");
        }
        for (written, said) in [
            ("0", "this is no port"),
            ("[3001, 65536]", "ports are 1 to 65535"),
            ("\"http\"", "this is no port"),
            ("-1", "this is no port"),
            ("[3001, 3.5]", "must be a port or a list of ports"),
            ("true", "must be a port or a list of ports"),
        ] {
            let told = mistakes(&format!("[sandbox]\nconnect = {written}\n{ROUTE}"));
            assert!(told.contains(said), "{written}: {told}");
            assert!(told.ends_with("1 mistake\n"), "{written}: {told}");
        }
    }

    #[test]
    fn mistakes_of_servers() {
        for (text, said) in [
            (
                "http = \"0.0.0.0:443\"\nhttps = \"0.0.0.0:443\"\n[[certificate]]\ncert = \"a\"\nkey = \"a\"",
                "0.0.0.0:443 is listened on twice",
            ),
            (
                "http = [\":80\", \"[::]:80\"]",
                "[::]:80 is listened on twice",
            ),
            ("https = \"0.0.0.0:443\"", "TLS needs a certificate"),
            ("http = []", "there is no address to listen on"),
            (
                "proxy_protocol = true",
                "`proxy_protocol` needs `trusted_proxies`",
            ),
            (
                "proxy_protocol = true\ntrusted_proxies = []",
                "such as trusted_proxies = [\"10.0.0.0/8\"]",
            ),
            // Which is all there is to say.
            (
                "proxy_protocol = true\ntrusted_proxy = \"10.0.0.0/8\"",
                "did you mean `trusted_proxies`?",
            ),
            (
                "proxy_protocol = true\ntrusted_proxies = \"10.0.0.0/40\"",
                "10.0.0.0/40",
            ),
            ("proxy_protocol = \"v2\"", "write it without quotes"),
            ("workers = 0", "must be 1 to 1024"),
            ("workers = -1", "must be 1 to 1024"),
            ("workers = \"2\"", "write workers = 2"),
            ("redirect_to_https = \"no\"", "without quotes"),
            ("user = \"root\"", "nothing here runs as root"),
            ("[log]\naccess = \"of\"", "did you mean \"off\"?"),
            ("[log]\naccess = \"access.log\"", "write \"./access.log\""),
            ("[log]\nformat = \"clf\"", "\"combined\" or \"json\""),
            (
                "[[certificate]]\ncert = \"x\"",
                "[[certificate]] needs `key`",
            ),
            (
                "[[certificate]]\nkey = \"x\"",
                "[[certificate]] needs `cert`",
            ),
            (
                "[[certificate]]\ncert = \"\"\nkey = \"x\"",
                "write the path of a file",
            ),
        ] {
            let told = mistakes(&format!("[server]\n{text}\n{ROUTE}"));
            assert!(told.contains(said), "{text}: {told}");
            assert!(told.ends_with("1 mistake\n"), "{text}: {told}");
        }
        let default =
            "[server]\nhttp = \"0.0.0.0:443\"\n[[certificate]]\ncert = \"a\"\nkey = \"a\"\n";
        let told = mistakes(&format!("{default}{ROUTE}"));
        assert!(told.contains("`https` has it by default"), "{told}");
        let fine = "http = [\"0.0.0.0:80\", \"127.0.0.1:80\"]";
        parsed(&format!("[server]\n{fine}\n{ROUTE}"));
    }
}
