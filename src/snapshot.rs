//! What runs: made whole from a configuration, swapped atomically, never changed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use tokio::sync::watch;

use crate::child::AppState;
use crate::config::{self, Config, ExpectUser, Mistake, Mistakes, PeerProtocol, Source};
use crate::http::host;
use crate::policy::Rates;
use crate::privilege::{Adopted, Identity, UserError};
use crate::route::RouteTable;
use crate::tls;
use crate::upstream::{Expect, Guard, Registry, Upstream};

/// A running configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// What it was made from; its routes are what [`table`](Self::table) has indexes of
    pub config: Config,
    /// Finds the route for a request
    pub table: RouteTable,
    /// Who has asked how often; a reload begins anew
    pub rates: Rates,
    /// As [`Config::upstreams`], with their peers' state
    pub upstreams: Vec<Arc<Upstream>>,
    /// What TLS takes
    pub keys: Keys,
    /// Where plaintext requests are redirected to; `None` if they are not
    pub https_port: Option<u16>,
    /// The supervised app
    pub app: Option<App>,
    /// Whether errors may say what only a developer should see
    pub dev: bool,
}

/// The certificates with their private keys.
#[derive(Debug)]
pub struct Keys {
    /// By name
    pub store: Arc<tls::Store>,
    /// `None` without a listener for TLS
    pub tls: Option<tls::Terms>,
}

impl Keys {
    /// Wipes them from memory: for a process that was forked while they were there and has no use for them.
    pub fn forget(&mut self) {
        self.tls = None;
        self.store = Arc::default();
    }
}

/// The supervised app, as the request path sees it.
#[derive(Debug, Clone)]
pub struct App {
    /// Its index in [`Snapshot::upstreams`]
    pub upstream: usize,
    /// What it is doing
    pub state: watch::Receiver<AppState>,
}

/// What outlives a snapshot and goes into the next.
#[derive(Debug)]
pub struct Lasting {
    /// The peers by address
    pub peers: Registry,
    /// Makes session tickets; those of before a reload stay good
    pub ticketer: tls::Ticketer,
    /// Listening sockets that were passed to this process
    pub adopted: Vec<Adopted>,
    /// The supervised app's state
    pub app: Option<watch::Receiver<AppState>>,
    /// Whether this is `lowport dev`
    pub dev: bool,
    /// Users that were found by name
    users: Mutex<HashMap<String, u32>>,
    /// Whether the system's table of users is out of reach
    users_closed: bool,
}

impl Lasting {
    /// No peers yet, no app.
    pub fn new(dev: bool) -> Self {
        Self {
            peers: Registry::default(),
            ticketer: tls::Ticketer::new(),
            adopted: Vec::new(),
            app: None,
            dev,
            users: Mutex::default(),
            users_closed: false,
        }
    }

    /// Asks the system's table of users no more: the sandbox has taken it away.
    pub fn close_users(&mut self) {
        self.users_closed = true;
    }

    /// Takes over users that somebody else has found.
    pub fn learn(&self, found: &[(String, u32)]) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.extend(found.iter().cloned());
    }

    /// The user of this name, as of now or as of when it could last be found.
    fn uid(&self, name: &str) -> Result<u32, UserError> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match self.users_closed {
            true => Err(UserError::Closed(name.to_owned())),
            false => Identity::lookup(name),
        };
        match (found, users.get(name)) {
            (Ok(found), _) => {
                users.insert(name.to_owned(), found.uid);
                Ok(found.uid)
            }
            (Err(_), Some(uid)) => Ok(*uid),
            (Err(error), None) => Err(error),
        }
    }
}

impl Snapshot {
    /// Makes all of it, or says all that is wrong. Reads certificates; binds and connects nothing.
    ///
    /// # Errors
    /// Every mistake of the configuration, its routes and its certificates.
    pub fn load(source: &Arc<Source>, lasting: &Lasting) -> Result<Self, Mistakes> {
        let mistakes = Mistakes::new(Arc::clone(source));
        let mut config = config::parse(source, &mistakes);
        Adopted::adopt(&lasting.adopted, &mut config);
        let table = RouteTable::build(&config.routes, &mistakes);
        let store = Arc::new(tls::Store::load(&config.certificates, &mistakes));
        let upstreams = config
            .upstreams
            .iter()
            .map(|upstream| running(upstream, lasting, &mistakes))
            .collect();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let tls =
            (!config.server.https.is_empty()).then(|| tls::Terms::new(&store, &lasting.ticketer));
        let https_port = config
            .server
            .https
            .first()
            .map(|listener| listener.addr.port());
        let app = supervised(&config, lasting);
        Ok(Self {
            https_port: https_port.filter(|_| config.server.redirect_to_https),
            config,
            table,
            rates: Rates::new(),
            upstreams,
            keys: Keys { store, tls },
            app,
            dev: lasting.dev,
        })
    }

    /// Follows the supervised app, which is started only when the configuration has been found valid.
    pub fn watch_app(&mut self, lasting: &Lasting) {
        self.app = supervised(&self.config, lasting);
    }

    /// For a developer: the routes that nearly matched, and why they did not. `host` is as the client wrote it.
    pub fn near_misses(&self, host: &str, path: &str, method: &Method) -> String {
        let name = host::parse(host).map_or(Cow::Borrowed(host), |host| host.name);
        self.table
            .explain(&self.config.routes, &name, path, method)
            .to_string()
    }
}

fn supervised(config: &Config, lasting: &Lasting) -> Option<App> {
    let (state, upstream) = lasting.app.clone().zip(config.app_upstream())?;
    Some(App { upstream, state })
}

fn running(upstream: &config::Upstream, lasting: &Lasting, mistakes: &Mistakes) -> Arc<Upstream> {
    let ca = upstream.ca.as_ref().map(|(path, _)| path.as_path());
    let peer = |peer: &config::Peer| lasting.peers.peer(&peer.addr, peer.protocol, ca);
    let https = upstream
        .peers
        .iter()
        .any(|peer| peer.protocol == PeerProtocol::Https);
    let tls = https
        .then(|| tls::client_config(upstream.ca.as_ref(), mistakes))
        .flatten();
    Arc::new(Upstream {
        name: upstream.name.clone(),
        peers: upstream.peers.iter().map(peer).collect(),
        tls,
        guard: Guard {
            expect: expect(upstream, lasting, mistakes),
            on_mismatch: upstream.on_mismatch,
        },
    })
}

/// Who may run an upstream, as a number.
fn expect(upstream: &config::Upstream, lasting: &Lasting, mistakes: &Mistakes) -> Expect {
    let name = match &upstream.expect_user {
        ExpectUser::Any => return Expect::Any,
        ExpectUser::NotRoot => return Expect::NotRoot,
        ExpectUser::Uid(uid) => return Expect::User(*uid, None),
        ExpectUser::Name(name) => name,
    };
    match lasting.uid(name) {
        Ok(uid) => Expect::User(uid, Some(name.clone())),
        Err(error) => {
            let mistake = Mistake::new(upstream.expect_user_span.clone(), error.to_string())
                .help("a uid needs no account: write the one that the app runs as, such as expect_user = \"1000\"");
            mistakes.push(mistake);
            Expect::NotRoot
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_found_once_is_known_when_the_table_of_users_is_gone() {
        let mut lasting = Lasting::new(false);
        assert_eq!(lasting.uid("root"), Ok(0));
        assert!(lasting.uid("no-such-user-here").is_err());
        lasting.learn(&[("no-such-user-here".to_owned(), 7)]);
        assert_eq!(lasting.uid("no-such-user-here"), Ok(7));
        lasting.close_users();
        assert_eq!(lasting.uid("root"), Ok(0));
        assert_eq!(
            lasting.uid("nobody"),
            Err(UserError::Closed("nobody".to_owned()))
        );
    }
}
