//! The redirect of low ports to others, with what is weak about it.

use super::compose::write;
use super::site::Port;
use super::template::lines;
use super::{Made, Site, Written};
use crate::config::Mistake;

const FILE: &str = "lowport.nft";

pub(super) fn files(site: &Site) -> Made {
    let mut from: Vec<(u16, u16)> = Vec::new();
    for Port { number, tls } in site.ports() {
        let low = if tls { 443 } else { 80 };
        if number < 1024 {
            refuse(site, number, tls);
        } else if from.iter().all(|(known, _)| *known != low) {
            from.push((low, number));
        }
    }
    let join = |ports: Vec<String>| ports.join(" and ");
    let rule = |before: &str| {
        lines(
            from.iter()
                .map(|(low, high)| format!("{before}tcp dport {low} redirect to :{high}")),
        )
    };
    let values = [
        ("source", site.source.name.clone()),
        ("file", FILE.to_owned()),
        (
            "ports",
            join(from.iter().map(|(low, _)| low.to_string()).collect()),
        ),
        (
            "others",
            join(from.iter().map(|(_, high)| high.to_string()).collect()),
        ),
        ("incoming", rule("fib daddr type local ")),
        ("own", rule("oifname \"lo\" ")),
    ];
    let text = write(include_str!("templates/nftables.nft"), &values);
    Made {
        files: vec![Written::new(FILE, text)],
        next: vec![
            format!("sudo nft -f {FILE}"),
            format!("lowport run -c {}", site.table_path()),
        ],
    }
}

fn refuse(site: &Site, number: u16, tls: bool) {
    let listener = site
        .config
        .listeners()
        .find(|(listener, _)| listener.addr.port() == number);
    let span = listener.and_then(|(listener, _)| listener.span.clone());
    let key = if tls { "https" } else { "http" };
    let other = 8000 + number;
    site.mistakes.push(
        Mistake::new(
            span,
            format!(
                "a redirect leads to a port from 1024 up, and lowport is to listen on {number}"
            ),
        )
        .help(format!(
            "{key} = \":{other}\" in [server], which {number} is redirected to"
        )),
    );
}
