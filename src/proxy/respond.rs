//! What the proxy answers by itself: redirects, fixed responses, error pages.

use std::fmt::Write;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use super::reply::ReplyBody;
use crate::child::AppState;
use crate::ctx::RequestCtx;
use crate::error::ProxyError;
use crate::http::hop::has_token;
use crate::http::host::Host;
use crate::snapshot::Snapshot;
use crate::upstream;

/// What an error page needs to know of a request that is gone by then.
#[derive(Debug)]
pub(super) struct Asks {
    form: Form,
    method: Method,
    uri: http::Uri,
    host: Option<HeaderValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Html,
    Json,
}

impl Asks {
    /// Costs no more than counting references.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let headers = request.headers();
        Self {
            form: form(headers),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: headers.get(header::HOST).cloned(),
        }
    }

    /// Whether only the head of the response is asked for.
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

fn form(headers: &HeaderMap) -> Form {
    let mut form = Form::Text;
    for value in headers.get_all(header::ACCEPT) {
        for item in value.as_bytes().split(|byte| b",;".contains(byte)) {
            let item = item.trim_ascii();
            if item.eq_ignore_ascii_case(b"text/html") {
                return Form::Html;
            }
            if item.eq_ignore_ascii_case(b"application/json")
                || item.eq_ignore_ascii_case(b"application/problem+json")
            {
                form = Form::Json;
            }
        }
    }
    form
}

/// Whether a person waits for the answer.
pub(super) fn is_browser(headers: &HeaderMap) -> bool {
    form(headers) == Form::Html && !has_token(headers, &header::UPGRADE, "websocket")
}

/// The same address over TLS. 308 keeps the method and the body (RFC 9110 section 15.4.9).
///
/// # Errors
/// Where the client named no host to be redirected to.
pub(super) fn to_https<B>(
    request: &Request<B>,
    host: &Host<'_>,
    port: u16,
) -> Result<Response<ReplyBody>, ProxyError> {
    let target = target(request);
    let port = if port == 443 {
        String::new()
    } else {
        format!(":{port}")
    };
    moved(
        &format!("https://{}{port}{target}", named(host)?),
        StatusCode::PERMANENT_REDIRECT,
    )
}

/// A route's redirect, with `{host}` and `{path}` filled in.
///
/// # Errors
/// Where `{host}` is to be filled in and the client named none.
pub(super) fn redirect<B>(
    request: &Request<B>,
    host: &Host<'_>,
    location: &str,
    status: StatusCode,
) -> Result<Response<ReplyBody>, ProxyError> {
    let mut location = location.to_owned();
    if location.contains("{host}") {
        location = location.replace("{host}", named(host)?);
    }
    moved(&location.replace("{path}", target(request)), status)
}

/// Path and query. The `*` of OPTIONS is about the whole server, which `/` comes nearest to: after a host, it would be
/// read as part of that.
fn target<B>(request: &Request<B>) -> &str {
    let target = request.uri().path_and_query().map(|target| target.as_str());
    target.filter(|target| *target != "*").unwrap_or("/")
}

fn named<'a>(host: &'a Host<'_>) -> Result<&'a str, ProxyError> {
    match &*host.name {
        "" => Err(ProxyError::BadRequest(
            "The request names no host, and without one it cannot be redirected.",
        )),
        name => Ok(name),
    }
}

fn moved(location: &str, status: StatusCode) -> Result<Response<ReplyBody>, ProxyError> {
    let location = HeaderValue::from_str(location)
        .map_err(|_| ProxyError::BadRequest("The request's path cannot be redirected."))?;
    let mut response = Response::new(ReplyBody::Empty);
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// The answer to an OPTIONS that must not be forwarded any further.
pub(super) fn options() -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Empty);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(METHODS));
    response
}

/// What is passed on: everything but TRACE and a bare CONNECT.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// A route's fixed response.
pub(super) fn fixed(
    status: StatusCode,
    body: &Bytes,
    content_type: &HeaderValue,
) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Full(body.clone()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type.clone());
    response
}

/// The page for an error: what it was, the request's id to find the reason in the log, and, in dev mode, what helps.
pub(super) fn error(
    snapshot: &Snapshot,
    asks: &Asks,
    ctx: &RequestCtx,
    error: &ProxyError,
) -> Response<ReplyBody> {
    let mut page = Page::plain(error.status(), error.public(), ctx.id.to_string());
    if snapshot.dev {
        explain(&mut page, snapshot, asks, error);
    }
    let (content_type, body) = match asks.form {
        Form::Text => ("text/plain; charset=utf-8", page.text()),
        Form::Html => ("text/html; charset=utf-8", page.html()),
        Form::Json => ("application/json", page.json()),
    };
    let mut response = fixed(
        page.status,
        &Bytes::from(body),
        &HeaderValue::from_static(content_type),
    );
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(error, ProxyError::MethodRefused) {
        headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
    }
    if let Some(seconds) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The answer to HEAD: of its body, no more than the length. hyper sees to that in HTTP/1.1 only.
pub(super) fn without_body(mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    if let ReplyBody::Full(body) = response.body() {
        let length = HeaderValue::from(body.len());
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
        *response.body_mut() = ReplyBody::Empty;
    }
    response
}

/// What only a developer should see.
fn explain(page: &mut Page, snapshot: &Snapshot, asks: &Asks, error: &ProxyError) {
    match error {
        ProxyError::NoRoute => {
            let host = asks
                .host
                .as_ref()
                .and_then(|host| host.to_str().ok())
                .unwrap_or_default();
            let host = asks
                .uri
                .authority()
                .map_or(host, http::uri::Authority::as_str);
            page.detail = snapshot.near_misses(host, asks.uri.path(), &asks.method);
        }
        ProxyError::AppDown(_) => {
            let Some(app) = &snapshot.app else { return };
            let state = app.state.borrow();
            page.reload = true;
            page.message = state.to_string();
            match &*state {
                AppState::Exited { stderr, .. } => page.detail = stderr.join("\n"),
                AppState::Stopped(_) => {}
                AppState::Starting { .. } | AppState::Ready => {
                    page.status = StatusCode::SERVICE_UNAVAILABLE;
                }
            }
        }
        ProxyError::WrongUser { .. } => {
            let _ = write!(page.detail, "{error}\n\n{}", upstream::REMEDY);
        }
        _ => {
            let _ = write!(page.detail, "{error}");
        }
    }
}

/// An error page in its three forms.
pub(super) struct Page {
    status: StatusCode,
    message: String,
    id: String,
    detail: String,
    reload: bool,
}

impl Page {
    /// A page that says no more than `message`.
    pub(super) fn plain(status: StatusCode, message: &str, id: String) -> Self {
        Self {
            status,
            message: message.to_owned(),
            id,
            detail: String::new(),
            reload: false,
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.status, self.message);
        if !self.detail.is_empty() {
            let _ = write!(text, "\n{}\n", self.detail.trim_end());
        }
        let _ = write!(text, "\nrequest id: {}\n", self.id);
        text
    }

    fn json(&self) -> String {
        let mut object = serde_json::json!({
            "status": self.status.as_u16(),
            "error": self.status.canonical_reason().unwrap_or_default(),
            "message": self.message,
            "request_id": self.id,
        });
        if !self.detail.is_empty() {
            object["detail"] = self.detail.trim_end().into();
        }
        format!("{object}\n")
    }

    fn html(&self) -> String {
        let reload = if self.reload { RELOAD } else { "" };
        let note = if self.reload {
            "<p class=n>This page reloads itself until the app is back.</p>"
        } else {
            ""
        };
        let detail = match self.detail.trim_end() {
            "" => String::new(),
            detail => format!("<pre>{}</pre>", escape(detail)),
        };
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <title>{status}</title><style>{STYLE}</style><main><h1>{status}</h1><p>{message}</p>{detail}{note}\
             <p class=n>request id <code>{id}</code></p></main>{reload}</html>\n",
            status = self.status,
            message = escape(&self.message),
            id = self.id,
        )
    }
}

/// Looks once a second whether there is something else to see. Not a reload each time: who reads a stack trace, or copies
/// from it, wants it to stay where it is. The answer of an app that is back is not read, since it may have no end.
const RELOAD: &str = "<script>{const seen=d=>[...d.querySelectorAll('h1,pre')].map(e=>e.textContent).join();\
    const look=async()=>{try{const r=await fetch(location.href,{headers:{accept:'text/html'},cache:'no-store'});\
    if(r.status!==502&&r.status!==503)return location.reload();\
    const d=new DOMParser().parseFromString(await r.text(),'text/html');\
    if(seen(d)!==seen(document))return location.reload()}catch{}setTimeout(look,1000)};setTimeout(look,1000)}</script>";

const STYLE: &str = ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:0;display:grid;\
    place-items:center;min-height:100vh;background:#f6f7f9;color:#1d2330}main{box-sizing:border-box;max-width:60rem;\
    padding:2rem}h1{font-size:1.5rem;margin:0 0 .5rem}p{margin:.75rem 0}\
    pre{font:.875rem/1.5 ui-monospace,monospace;background:#12161f;color:#e7ebf3;padding:1rem 1.25rem;border-radius:8px;\
    margin:1rem 0;white-space:pre-wrap;overflow-wrap:anywhere}.n{color:#5d687d;font-size:.875rem;margin:.25rem 0}\
    @media(prefers-color-scheme:dark){body{background:#12161f;color:#e7ebf3}pre{background:#05070b}.n{color:#9aa4b8}}";

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use crate::snapshot::Lasting;

    fn asks(accept: &str) -> Form {
        Asks::of(
            &Request::builder()
                .header("accept", accept)
                .body(())
                .unwrap(),
        )
        .form
    }

    #[test]
    fn the_form_is_what_the_client_asks_for() {
        assert_eq!(
            asks("text/html,application/xhtml+xml,*/*;q=0.8"),
            Form::Html
        );
        assert_eq!(asks("application/json, text/plain, */*"), Form::Json);
        assert_eq!(asks("*/*"), Form::Text);
    }

    #[test]
    fn pages_escape_what_they_show() {
        let page = Page {
            status: StatusCode::BAD_GATEWAY,
            message: "a".into(),
            id: "0".into(),
            detail: "<script>\"&".into(),
            reload: false,
        };
        assert!(page.html().contains("&lt;script&gt;&quot;&amp;"));
        let json: serde_json::Value = serde_json::from_str(&page.json()).unwrap();
        assert_eq!(json["detail"], "<script>\"&");
    }

    #[test]
    fn a_developer_is_told_which_routes_nearly_matched() {
        let source = Source::of_text(
            "t",
            "[server]\nhttp = \"127.0.0.1:8080\"\n\
                   [[route]]\nhost = \"a.test\"\npath = \"/api\"\nrespond = \"x\"\n",
        );
        let Ok(snapshot) = Snapshot::load(&source, &Lasting::new(true)) else {
            panic!("the configuration is valid");
        };
        for (uri, host, expected) in [
            // HTTP/1.1 and HTTP/2 name the host in different places.
            ("/api/v1", Some("b.test"), "a.test"),
            ("https://b.test/api/v1", None, "a.test"),
            ("/other", Some("a.test"), "/api"),
        ] {
            let mut request = Request::builder().uri(uri);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let asks = Asks::of(&request.body(()).unwrap());
            let mut page = Page {
                status: StatusCode::NOT_FOUND,
                message: String::new(),
                id: String::new(),
                detail: String::new(),
                reload: false,
            };
            explain(&mut page, &snapshot, &asks, &ProxyError::NoRoute);
            assert!(page.detail.contains(expected), "{}", page.detail);
        }
    }

    #[test]
    fn https_redirects_keep_path_and_query() {
        let request = Request::builder()
            .uri("/a%2Fb?c=d")
            .header("host", "Example.com:8080")
            .body(())
            .unwrap();
        let host = crate::http::host::of(&request).unwrap();
        let at = |port| to_https(&request, &host, port).unwrap().headers()["location"].clone();
        assert_eq!(at(443), "https://example.com/a%2Fb?c=d");
        assert_eq!(at(8443), "https://example.com:8443/a%2Fb?c=d");
    }
}
