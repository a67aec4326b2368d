//! The guard: an upstream that the wrong user runs is not served.
//!
//! It looks once at each new connection, never at each request: at the first ones to a peer before anything is sent, as
//! soon as the app has accepted them; at later ones when the head of the first response is there.

use std::fmt;

use tracing::{debug, error, info, warn};

use super::far_end::{FarEnd, Owner, Process, Why};
use super::peer::Peer;
use crate::config::OnMismatch;
use crate::error::ProxyError;
use crate::privilege::{SockDiag, Witness};

/// What an operator can do about an app that the wrong user runs.
pub const REMEDY: &str = "run the app as that user: `USER node` in its Dockerfile, `user = \"node\"` in [app], \
    `runAsNonRoot: true` with `runAsUser: 1000` in Kubernetes, `User=node` in its systemd unit; or say who may run it: \
    `expect_user` in [upstream.NAME]";

/// Who may run an upstream, and what happens when somebody else does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Who may run it
    pub expect: Expect,
    /// What happens when somebody else does
    pub on_mismatch: OnMismatch,
}

/// Who may run an upstream, as a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Anybody: nothing is asked
    Any,
    /// Anybody but uid 0
    NotRoot,
    /// One user, and how that one was written
    User(u32, Option<String>),
}

/// What the guard says of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its other end belongs to somebody who may run the upstream
    Ok {
        /// Who that is
        uid: u32,
    },
    /// It belongs to somebody who may not
    Mismatch {
        /// Who that is
        uid: u32,
        /// Who may
        expected: Expect,
    },
    /// Nobody knows; never a reason to refuse
    Unknown {
        /// Why nobody does
        why: Why,
    },
}

impl Expect {
    fn allows(&self, uid: u32) -> bool {
        match self {
            Self::Any => true,
            Self::NotRoot => uid != 0,
            Self::User(expected, _) => uid == *expected,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anybody"),
            Self::NotRoot => f.write_str("anybody but root"),
            Self::User(uid, Some(name)) => write!(f, "{name} (uid {uid})"),
            Self::User(uid, None) => f.write_str(&user(*uid)),
        }
    }
}

impl Guard {
    /// Whether it cares. If not, nothing is looked at.
    pub(super) fn asks(&self) -> bool {
        self.expect != Expect::Any
    }

    /// Refuses what was refused less than a second ago, before anything is sent.
    pub(super) fn remembers(&self, peer: &Peer) -> Result<(), ProxyError> {
        match peer.standing.refused(peer.now()) {
            Some(uid) if self.refuses(uid) => Err(self.refusal(uid)),
            _ => Ok(()),
        }
    }

    /// What is known of a connection already, against who may run it as of now.
    pub(super) fn allows(&self, owner: Owner) -> Result<(), ProxyError> {
        match owner {
            Owner::Uid(uid, _) if self.refuses(uid) => Err(self.refusal(uid)),
            _ => Ok(()),
        }
    }

    /// Judges what was found out about a new connection; says so in the log where that is news, and remembers it.
    pub(super) fn settle(
        &self,
        peer: &Peer,
        end: &FarEnd,
        owner: Owner,
        witness: &Witness,
    ) -> Result<(), ProxyError> {
        let verdict = self.judge(owner);
        tell(self, peer, end, owner, &verdict, witness);
        tell_exposure(peer, end, witness.sockets.as_ref());
        match verdict {
            Verdict::Mismatch { uid, .. } if self.refuses(uid) => {
                peer.standing.refuse(uid, peer.now());
                Err(self.refusal(uid))
            }
            // Somebody who always closes first must not escape: the next one is looked at in time.
            Verdict::Unknown { why: Why::Closed } => {
                peer.standing.suspect();
                Ok(())
            }
            _ => {
                peer.standing.trust();
                Ok(())
            }
        }
    }

    fn judge(&self, owner: Owner) -> Verdict {
        match owner {
            Owner::Uid(uid, _) if self.expect.allows(uid) => Verdict::Ok { uid },
            Owner::Uid(uid, _) => Verdict::Mismatch {
                uid,
                expected: self.expect.clone(),
            },
            Owner::Unknown(why) => Verdict::Unknown { why },
        }
    }

    fn refuses(&self, uid: u32) -> bool {
        self.on_mismatch == OnMismatch::Refuse && !self.expect.allows(uid)
    }

    fn refusal(&self, uid: u32) -> ProxyError {
        ProxyError::WrongUser {
            found: user(uid),
            expected: self.expect.to_string(),
        }
    }
}

fn user(uid: u32) -> String {
    match uid {
        0 => "root (uid 0)".to_owned(),
        _ => format!("uid {uid}"),
    }
}

/// Says what was found, once for each peer and again when it changes.
fn tell(
    guard: &Guard,
    peer: &Peer,
    end: &FarEnd,
    owner: Owner,
    verdict: &Verdict,
    witness: &Witness,
) {
    const KNOWN: u64 = 1 << 32;
    const WRONG: u64 = 1 << 33;
    const UNKNOWN: u64 = 1 << 34;
    let upstream = peer.display.as_str();
    let what = match verdict {
        Verdict::Ok { uid } => KNOWN | u64::from(*uid),
        Verdict::Mismatch { uid, .. } => WRONG | u64::from(*uid),
        Verdict::Unknown {
            why: Why::OtherNamespace,
        } => UNKNOWN,
        Verdict::Unknown { why: Why::NotTold } => UNKNOWN | 1,
        // There is nothing to be done about it, and a connection that closes is no change.
        Verdict::Unknown {
            why: why @ (Why::Remote | Why::Closed),
        } => {
            return debug!(upstream, %why, "nobody knows who runs the upstream");
        }
    };
    if peer.standing.tell(what) == what {
        return;
    }
    match (verdict, owner) {
        (Verdict::Mismatch { uid, expected }, Owner::Uid(_, checked)) => {
            let found = user(*uid);
            if guard.refuses(*uid) {
                error!(upstream, %checked, "the upstream is run by {found}, expect_user allows {expected}: refused; {REMEDY}");
            } else {
                warn!(upstream, %checked, "the upstream is run by {found}, expect_user allows {expected}; {REMEDY}");
            }
        }
        (Verdict::Ok { uid }, Owner::Uid(_, checked)) => {
            info!(upstream, uid, %checked, "the upstream is run by who may run it");
            tell_more(peer, end, *uid, witness);
        }
        (Verdict::Unknown { why }, _) => {
            warn!(
                upstream,
                "nobody knows who runs the upstream: {why}; served all the same"
            );
        }
        (Verdict::Ok { .. } | Verdict::Mismatch { .. }, Owner::Unknown(_)) => {}
    }
}

/// Says how the process behind a Unix socket may do more than its user `uid`: as far as this process can tell, or else
/// when somebody has told who can.
fn tell_more(peer: &Peer, end: &FarEnd, uid: u32, witness: &Witness) {
    let Some(pid) = end.process() else {
        return;
    };
    let upstream = peer.display.clone();
    let tell = move |process: Process| {
        if let Some(more) = process.more_than(uid) {
            warn!(
                upstream,
                uid, "the upstream may do more than its user: pid {pid} {more}"
            );
        }
    };
    match (Process::read(pid), &witness.processes) {
        (Some(process), _) => tell(process),
        (None, Some(processes)) => {
            let processes = processes.clone();
            tokio::task::spawn_local(async move {
                if let Some(state) = processes.process(pid).await {
                    tell(Process::of(&state));
                }
            });
        }
        (None, None) => {}
    }
}

/// Says, once for each peer, that an app can be reached around lowport.
fn tell_exposure(peer: &Peer, end: &FarEnd, sockets: Option<&SockDiag>) {
    let (FarEnd::Tcp { theirs, .. }, Some(sockets)) = (end, sockets) else {
        return;
    };
    if !peer.standing.look_at_exposure() {
        return;
    }
    if let Ok(Some(everywhere)) = sockets.listens_on(*theirs)
        && everywhere.is_unspecified()
    {
        warn!(
            upstream = peer.display,
            "the app listens on all addresses ({everywhere}), so that it can be reached around lowport: have it listen on \
             127.0.0.1, as in `server.listen(port, \"127.0.0.1\")`"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::Registry;
    use super::super::far_end::By;
    use super::*;
    use crate::config::{PeerAddr, PeerProtocol};

    fn guard(expect: Expect, on_mismatch: OnMismatch) -> Guard {
        Guard {
            expect,
            on_mismatch,
        }
    }

    fn peer() -> std::sync::Arc<Peer> {
        let addr = PeerAddr::Name("app".into(), 1);
        Registry::default().peer(&addr, PeerProtocol::Http1, None)
    }

    fn uid(uid: u32) -> Owner {
        Owner::Uid(uid, By::Accepted)
    }

    #[test]
    fn who_may_run_it() {
        let of = |expect: Expect, owner| guard(expect, OnMismatch::Refuse).judge(owner);
        assert_eq!(of(Expect::NotRoot, uid(1)), Verdict::Ok { uid: 1 });
        let expected = Expect::NotRoot;
        assert_eq!(
            of(Expect::NotRoot, uid(0)),
            Verdict::Mismatch { uid: 0, expected }
        );
        let one = Expect::User(1000, Some("node".into()));
        assert_eq!(of(one.clone(), uid(1000)), Verdict::Ok { uid: 1000 });
        assert_eq!(
            of(one.clone(), uid(1)),
            Verdict::Mismatch {
                uid: 1,
                expected: one.clone()
            }
        );
        assert_eq!(of(Expect::User(0, None), uid(0)), Verdict::Ok { uid: 0 });
        let why = Why::OtherNamespace;
        assert_eq!(of(one, Owner::Unknown(why)), Verdict::Unknown { why });
    }

    #[test]
    fn what_was_refused_is_remembered_for_those_who_would_refuse_it() {
        let strict = guard(Expect::NotRoot, OnMismatch::Refuse);
        let peer = peer();
        assert!(strict.remembers(&peer).is_ok());
        let end = FarEnd::Remote;
        let refused = strict
            .settle(&peer, &end, uid(0), &Witness::default())
            .unwrap_err();
        assert!(refused.to_string().contains("root (uid 0)"), "{refused}");
        assert!(strict.remembers(&peer).is_err());
        for lenient in [
            guard(Expect::NotRoot, OnMismatch::Warn),
            guard(Expect::Any, OnMismatch::Refuse),
            guard(Expect::User(0, None), OnMismatch::Refuse),
        ] {
            assert!(lenient.remembers(&peer).is_ok(), "{lenient:?}");
        }
        assert!(
            strict
                .settle(&peer, &end, uid(5), &Witness::default())
                .is_ok()
        );
        assert!(strict.remembers(&peer).is_ok() && !peer.standing.is_suspect());
    }

    #[test]
    fn unknown_is_served_and_who_closes_first_is_looked_at_in_time() {
        let strict = guard(Expect::NotRoot, OnMismatch::Refuse);
        let peer = peer();
        let unknown = |why| {
            strict.settle(
                &peer,
                &FarEnd::Remote,
                Owner::Unknown(why),
                &Witness::default(),
            )
        };
        assert!(unknown(Why::OtherNamespace).is_ok());
        assert!(!peer.standing.is_suspect());
        assert!(unknown(Why::Closed).is_ok());
        assert!(peer.standing.is_suspect());
    }
}
