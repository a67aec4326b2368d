//! What a configuration means: every value is checked and no invalid state can be expressed.
//!
//! [`super::parse()`] makes these out of TOML; [`crate::snapshot`] makes a running table out of them.
//! A [`Span`] is kept wherever a later stage (reading a certificate, binding a port) may still find
//! a mistake, so that its message can point into the file.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use ipnet::IpNet;

/// Byte range in the configuration file; `None` for a value that is a default.
pub type Span = Option<Range<usize>>;

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[log]`
    pub log: Log,
    /// `[sandbox]`
    pub sandbox: Sandbox,
    /// `[limits]`, the defaults for routes
    pub limits: Limits,
    /// `[timeouts]`, the defaults for routes
    pub timeouts: Timeouts,
    /// `[[certificate]]`, in the order of the file; the first one is the default
    pub certificates: Vec<CertificateFiles>,
    /// `[upstream.NAME]`, also those that a route's `to` or `[app]` implies
    pub upstreams: Vec<Upstream>,
    /// `[app]`
    pub app: Option<App>,
    /// `[[route]]`, in the order of the file
    pub routes: Vec<Route>,
}

impl Config {
    /// The index in [`upstreams`](Self::upstreams) of the one that `[app]` implies.
    pub fn app_upstream(&self) -> Option<usize> {
        self.app.as_ref()?;
        self.upstreams
            .iter()
            .position(|upstream| upstream.name == super::upstream::APP)
    }
}

impl Config {
    /// All listeners, and whether TLS is spoken there.
    pub fn listeners(&self) -> impl Iterator<Item = (&Listener, bool)> {
        let http = self.server.http.iter().map(|listener| (listener, false));
        let https = self.server.https.iter().map(|listener| (listener, true));
        http.chain(https)
    }

    /// Whether there are bodies that may pass from socket to socket: plaintext ones.
    pub fn splices(&self) -> bool {
        let redirects = self.server.redirect_to_https && !self.server.https.is_empty();
        self.server.splice && !self.server.http.is_empty() && !redirects
    }
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// Plaintext listeners
    pub http: Vec<Listener>,
    /// TLS listeners; empty when there is no certificate
    pub https: Vec<Listener>,
    /// Answer plaintext requests with a redirect when there are TLS listeners too
    pub redirect_to_https: bool,
    /// Who the proxy becomes when started as root
    pub user: User,
    /// Worker threads, 1 to 1024
    pub workers: usize,
    /// Peers whose forwarded headers are believed
    pub trusted_proxies: Vec<IpNet>,
    /// Whether those begin connections with the PROXY protocol; there is at least one then
    pub proxy_protocol: bool,
    /// Whether large bodies may pass from socket to socket within the kernel
    pub splice: bool,
}

impl Server {
    /// Whether forwarded headers from `peer` are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }

    /// Whether a connection from `peer` begins with a header of the PROXY protocol. It never depends on what comes: whoever
    /// may choose could be anybody.
    pub fn introduces(&self, peer: IpAddr) -> bool {
        self.proxy_protocol && self.trusts(peer)
    }
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// IPv4 or IPv6 address and port; never port 0
    pub addr: SocketAddr,
    /// Where it was written
    pub span: Span,
}

/// A user by name or number, looked up only when needed.
#[derive(Debug, Clone)]
pub struct User {
    /// `name`, `uid` or `uid:gid` as written
    pub name: String,
    /// Where it was written
    pub span: Span,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where access records go
    pub access: AccessLog,
    /// How access records look
    pub format: LogFormat,
}

/// `[sandbox]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// TCP ports that a reload may bring upstreams on, besides those of the upstreams that are there at start
    pub connect: Vec<u16>,
    /// TCP ports that a reload may bring listeners on, besides 80, 443 and those that are there at start
    pub bind: Vec<u16>,
    /// Folders that a reload may bring files from, besides those of the files that are there at start
    pub read: Vec<(PathBuf, Span)>,
    /// What lowport may serve without, where the kernel does not have it
    pub allow_degraded: Vec<Layer>,
}

/// A layer of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// Files and ports
    Landlock,
    /// System calls
    Seccomp,
}

/// Where access records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere
    Off,
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
    /// A file that is appended to and reopened on SIGUSR1
    File(PathBuf),
}

/// How access records look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// The combined log format of Apache and nginx, with request id, upstream and times appended
    Combined,
    /// One JSON object a line
    Json,
}

/// `[limits]` and `[route.limits]`. `None` stands for "no limit".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's head, 8 KiB to 1 MiB
    pub request_head: usize,
    /// Bytes of a request's target, 1 KiB to 60 KiB
    pub request_target: usize,
    /// Header fields of a request, 1 to 1000
    pub request_headers: usize,
    /// Bytes of a request's body
    pub request_body: Option<u64>,
    /// Client connections in all
    pub connections: Option<usize>,
    /// Client connections from one address, or one /64 of IPv6
    pub connections_per_ip: Option<usize>,
    /// Requests over one connection
    pub requests_per_connection: Option<u32>,
    /// Requests at a time over one HTTP/2 connection, 1 to 10,000
    pub streams: u32,
    /// Requests that upstreams are busy with, in all
    pub requests_in_flight: Option<usize>,
    /// Bytes of memory that this process may have
    pub memory: Memory,
    /// Requests of one client
    pub request_rate: Option<Rate>,
    /// Bytes a second of a request's body, at least
    pub request_body_rate: Option<u64>,
}

/// How much memory there may be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Of what the system has for this process, so many percent: 1 to 100
    Share(u8),
    /// So many bytes, at least 4 MiB
    Bytes(u64),
    /// As much as there is
    Any,
}

/// `request_rate` and `request_burst`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// How many, at least 1
    pub requests: u32,
    /// In what time: a second, a minute or an hour
    pub per: Duration,
    /// How many at once, at least 1
    pub burst: u32,
    /// Whether the route counts by itself; all others are counted together
    pub own: bool,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{per}, {} at once", self.requests, self.burst)
    }
}

/// `[timeouts]` and `[route.timeouts]`; none is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole TLS handshake
    pub tls_handshake: Duration,
    /// The whole head of a request, from its first byte (from accept for the first one)
    pub request_head: Duration,
    /// For how long a client may keep its request's body waiting; made good by what it sends
    pub request_body_idle: Duration,
    /// Between two writes of a response that the client takes
    pub response_write_idle: Duration,
    /// An idle client connection
    pub keepalive_idle: Duration,
    /// After so long an idle one over HTTP/1 gives back its buffers; `None` for never
    pub hibernate: Option<Duration>,
    /// Connecting to a peer
    pub upstream_connect: Duration,
    /// From the request sent to the response head
    pub upstream_response: Duration,
    /// Between two reads of a response's body
    pub upstream_idle: Duration,
    /// Between two bytes of a tunnel, in either direction
    pub tunnel_idle: Duration,
    /// From SIGTERM to the last connection cut
    pub drain: Duration,
}

/// `[[certificate]]`: the files; their contents are read by [`crate::tls`].
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// PEM chain, leaf first
    pub cert: PathBuf,
    /// Where `cert` was written
    pub cert_span: Span,
    /// PEM private key: PKCS#8, PKCS#1 or SEC1
    pub key: PathBuf,
    /// Where `key` was written
    pub key_span: Span,
}

/// `[upstream.NAME]`: a group of peers that serve the same thing.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name; for a route's `to` the URL itself
    pub name: String,
    /// At least one
    pub peers: Vec<Peer>,
    /// Who must be running it
    pub expect_user: ExpectUser,
    /// Where `expect_user` was written
    pub expect_user_span: Span,
    /// What happens when somebody else does
    pub on_mismatch: OnMismatch,
    /// PEM file of authorities that `https://` peers are checked against instead of the system's
    pub ca: Option<(PathBuf, Span)>,
    /// Where it was written
    pub span: Span,
}

/// One address of an upstream.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where to connect
    pub addr: PeerAddr,
    /// What to speak
    pub protocol: PeerProtocol,
    /// Where it was written
    pub span: Span,
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerAddr {
    /// IP address and port
    Ip(SocketAddr),
    /// DNS name (or `localhost`) and port, resolved when connecting
    Name(String, u16),
    /// Unix socket
    Unix(PathBuf),
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => write!(f, "{addr}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What to speak with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerProtocol {
    /// HTTP/1.1, plaintext
    Http1,
    /// HTTP/1.1 over TLS
    Https,
    /// HTTP/2 with prior knowledge, plaintext (RFC 9113 section 3.3)
    H2c,
}

/// `expect_user`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectUser {
    /// Anybody but uid 0
    NotRoot,
    /// Anybody
    Any,
    /// A user by name
    Name(String),
    /// A user by number
    Uid(u32),
}

/// `on_mismatch`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMismatch {
    /// Answer 502
    Refuse,
    /// Log a warning
    Warn,
}

/// `[app]`: the Node app that lowport starts, watches and restarts.
#[derive(Debug, Clone)]
pub struct App {
    /// Program and arguments; never empty
    pub command: Vec<String>,
    /// Working directory
    pub dir: PathBuf,
    /// Who runs it when lowport was started as root
    pub user: Option<User>,
    /// Where it is expected to listen
    pub listens: AppAddr,
    /// Whether system calls that no Node app makes are kept from it
    pub sandbox: bool,
    /// Where `[app]` was written; `None` when the app is only on the command line
    pub span: Span,
}

/// Where the app listens, as it is told in `PORT`. Node takes either for a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppAddr {
    /// A port of 127.0.0.1
    Port(u16),
    /// A Unix socket, by its absolute path
    Socket(PathBuf),
}

impl fmt::Display for AppAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[[route]]`
#[derive(Debug, Clone)]
pub struct Route {
    /// Which hosts
    pub host: HostMatch,
    /// Which paths
    pub path: PathMatch,
    /// Which methods; empty for all
    pub methods: Vec<Method>,
    /// What to do
    pub action: Action,
    /// A path prefix to take off before forwarding; begins with `/`, does not end with it
    pub strip_prefix: Option<String>,
    /// `[route.limits]` over `[limits]`
    pub limits: Limits,
    /// `[route.timeouts]` over `[timeouts]`
    pub timeouts: Timeouts,
    /// Where the `[[route]]` header was written
    pub span: Span,
}

/// `host`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostMatch {
    /// Any host
    Any,
    /// This host: lower case, no port, no trailing dot; IPv6 addresses in brackets
    Exact(String),
    /// Every host that ends with `.` and this, however many labels: for `*.example.com`, `example.com`
    Wildcard(String),
}

/// `path`, `path_exact` or `path_regex`
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// Any path
    Any,
    /// This path
    Exact(String),
    /// This path and whatever is below it: `/api` for `/api` and `/api/x`, not `/apix`. Never ends with `/`
    Prefix(String),
    /// A regular expression over the whole path: `\A(?:` and `)\z` around what was written, with no flags but those in the text
    Regex(regex::Regex),
}

/// What a route does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Forward to the upstream at this index of [`Config::upstreams`]
    Proxy(usize),
    /// Answer with a redirect
    Redirect {
        /// `{path}` (with query) and `{host}` stand for the request's own
        location: String,
        /// 301, 302, 303, 307 or 308
        status: StatusCode,
    },
    /// Answer with a fixed response
    Respond {
        /// 200 to 599
        status: StatusCode,
        /// The body
        body: bytes::Bytes,
        /// Its `Content-Type`
        content_type: HeaderValue,
    },
}
