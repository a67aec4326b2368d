//! Holding requests while the supervised app starts or restarts.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout, timeout_at};

use super::respond;
use crate::child::AppState;
use crate::ctx::RequestCtx;
use crate::error::ProxyError;
use crate::snapshot::{App, Snapshot};

/// How long a browser waits before it gets a page that reloads itself.
const BROWSER: Duration = Duration::from_secs(5);
/// An app that restarts sooner than this is waited for; a longer back-off means that it crashes again and again.
const SOON: Duration = Duration::from_secs(1);
/// How long an app that runs but refuses connections is given: its own watcher may be restarting it.
const RESTART: Duration = Duration::from_secs(5);
/// How often such an app is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// Waits until the app behind the upstream at `index` is ready; at once for one that is not supervised.
///
/// # Errors
/// [`ProxyError::AppDown`] when it crashes over and over, or takes longer than the client should wait.
pub(super) async fn until_ready(
    snapshot: &Snapshot,
    index: usize,
    ctx: &RequestCtx,
    headers: &HeaderMap,
) -> Result<(), ProxyError> {
    match supervised(snapshot, index) {
        Some(app) if !matches!(*app.state.borrow(), AppState::Ready) => {
            wait(app, snapshot, ctx, headers).await
        }
        _ => Ok(()),
    }
}

/// After a refused connection, which is the first sign of a restart: waits for the app, or a moment if it seems well.
/// `since` is when the first connection for this request was refused.
///
/// # Errors
/// `refused` itself where there is no supervised app or it has refused for too long, else as [`until_ready`].
pub(super) async fn after_refusal(
    snapshot: &Snapshot,
    index: usize,
    ctx: &RequestCtx,
    headers: &HeaderMap,
    since: Instant,
    refused: ProxyError,
) -> Result<(), ProxyError> {
    let Some(app) = supervised(snapshot, index) else {
        return Err(refused);
    };
    let mut state = app.state.clone();
    let down = state.wait_for(|state| !matches!(state, AppState::Ready));
    // What is waited for comes with a lock on the state, which may change only once that is let go of.
    let down = timeout(RETRY, down).await.map(|down| down.map(drop));
    match down {
        Ok(Ok(())) => wait(app, snapshot, ctx, headers).await,
        // The supervisor is gone, and the app with it.
        Ok(Err(_)) => Err(refused),
        Err(_) if since.elapsed() < RESTART => Ok(()),
        Err(_) => Err(refused),
    }
}

fn supervised(snapshot: &Snapshot, index: usize) -> Option<&App> {
    snapshot.app.as_ref().filter(|app| app.upstream == index)
}

async fn wait(
    app: &App,
    snapshot: &Snapshot,
    ctx: &RequestCtx,
    headers: &HeaderMap,
) -> Result<(), ProxyError> {
    let patience = if respond::is_browser(headers) {
        BROWSER
    } else {
        snapshot.config.timeouts.upstream_response
    };
    let deadline = Instant::now() + patience;
    let mut state = app.state.clone();
    tracing::debug!(id = %ctx.id, "request waits for the app");
    let settled = state.wait_for(|state| matches!(state, AppState::Ready) || crashes(state));
    let settled = timeout_at(deadline, settled).await;
    // As above.
    let ready =
        settled.is_ok_and(|state| state.is_ok_and(|state| matches!(*state, AppState::Ready)));
    if ready {
        Ok(())
    } else {
        Err(ProxyError::AppDown(app.state.borrow().to_string()))
    }
}

/// Whether waiting is in vain.
fn crashes(state: &AppState) -> bool {
    match state {
        AppState::Exited { restart_in, .. } => *restart_in >= SOON,
        AppState::Stopped(_) => true,
        AppState::Starting { .. } | AppState::Ready => false,
    }
}
