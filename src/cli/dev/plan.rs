//! What `lowport dev` amounts to, as the TOML that `lowport run` would take.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::ports::Ports;
use crate::config::CertificateFiles;
use crate::privilege::has_ipv6;

/// Everything that was found out.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) dir: PathBuf,
    pub(super) command: Vec<String>,
    /// `None` where the proxy stays who it is
    pub(super) proxy_user: Option<String>,
    /// `None` where the app runs as the invoking user
    pub(super) app_user: Option<String>,
    /// Certificates for localhost and below; the first is the default
    pub(super) leaves: [CertificateFiles; 2],
    pub(super) ports: Ports,
}

impl Plan {
    /// A configuration that reads well and does the same with `lowport run`.
    pub(super) fn toml(&self) -> String {
        let mut text = String::from(
            "# What `lowport dev` amounts to: save it as lowport.toml for `lowport run`.\n",
        );
        let mut line = |words: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{words}");
        };
        line(format_args!("[server]"));
        line(format_args!("http = {}", addresses(self.ports.http.port)));
        line(format_args!("https = {}", addresses(self.ports.https.port)));
        if let Some(user) = &self.proxy_user {
            line(format_args!("user = {}", quoted(user)));
        }
        line(format_args!("\n[log]\naccess = \"off\""));
        for leaf in &self.leaves {
            line(format_args!("\n[[certificate]]"));
            line(format_args!("cert = {}", quoted_path(&leaf.cert)));
            line(format_args!("key = {}", quoted_path(&leaf.key)));
        }
        line(format_args!("\n[app]"));
        let command: Vec<String> = self.command.iter().map(|word| quoted(word)).collect();
        line(format_args!("command = [{}]", command.join(", ")));
        line(format_args!("dir = {}", quoted_path(&self.dir)));
        if let Some(user) = &self.app_user {
            line(format_args!("user = {}", quoted(user)));
        }
        line(format_args!("port = {}", self.ports.app));
        if self.app_user.as_deref() == Some("nobody") {
            // Its number also stands for the users of other namespaces, so the kernel's word would not settle it.
            line(format_args!("\n[upstream.app]\nexpect_user = \"any\""));
        }
        line(format_args!("\n[[route]]\nupstream = \"app\""));
        text
    }
}

/// Only this machine's: a development server is nobody else's business.
fn addresses(port: u16) -> String {
    let v4 = format!("\"127.0.0.1:{port}\"");
    if has_ipv6() {
        format!("[{v4}, \"[::1]:{port}\"]")
    } else {
        format!("[{v4}]")
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}
