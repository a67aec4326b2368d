//! Which keys there are, and which one was probably meant.

/// The keys of one table.
#[derive(Debug)]
pub(super) struct Known {
    /// Its header as one writes it; empty for the top level
    pub(super) header: &'static str,
    /// Every key that it takes
    pub(super) keys: &'static [&'static str],
}

/// The top level: tables only.
pub(super) static TOP: Known = Known {
    header: "",
    keys: &[
        "server",
        "log",
        "sandbox",
        "limits",
        "timeouts",
        "certificate",
        "upstream",
        "app",
        "route",
    ],
};

/// `[server]`
pub(super) static SERVER: Known = Known {
    header: "[server]",
    keys: &[
        "http",
        "https",
        "redirect_to_https",
        "user",
        "workers",
        "trusted_proxies",
        "proxy_protocol",
        "splice",
    ],
};

/// `[log]`
pub(super) static LOG: Known = Known {
    header: "[log]",
    keys: &["access", "format"],
};

/// `[sandbox]`
pub(super) static SANDBOX: Known = Known {
    header: "[sandbox]",
    keys: &["connect", "bind", "read", "allow_degraded"],
};

/// `[limits]`
pub(super) static LIMITS: Known = Known {
    header: "[limits]",
    keys: &[
        "request_head",
        "request_target",
        "request_headers",
        "request_body",
        "request_body_rate",
        "request_rate",
        "request_burst",
        "requests_per_connection",
        "requests_in_flight",
        "streams",
        "connections",
        "connections_per_ip",
        "memory",
    ],
};

/// `[timeouts]`
pub(super) static TIMEOUTS: Known = Known {
    header: "[timeouts]",
    keys: &[
        "tls_handshake",
        "request_head",
        "request_body_idle",
        "response_write_idle",
        "keepalive_idle",
        "hibernate",
        "upstream_connect",
        "upstream_response",
        "upstream_idle",
        "tunnel_idle",
        "drain",
    ],
};

/// `[[certificate]]`
pub(super) static CERTIFICATE: Known = Known {
    header: "[[certificate]]",
    keys: &["cert", "key"],
};

/// `[upstream.NAME]`
pub(super) static UPSTREAM: Known = Known {
    header: "[upstream.NAME]",
    keys: &["peers", "expect_user", "on_mismatch", "ca"],
};

/// `[app]`
pub(super) static APP: Known = Known {
    header: "[app]",
    keys: &["command", "dir", "user", "port", "sandbox"],
};

/// `[[route]]`
pub(super) static ROUTE: Known = Known {
    header: "[[route]]",
    keys: &[
        "host",
        "path",
        "path_exact",
        "path_regex",
        "methods",
        "upstream",
        "to",
        "redirect",
        "respond",
        "status",
        "content_type",
        "strip_prefix",
        "limits",
        "timeouts",
    ],
};

/// `[route.limits]`: what can be told once the route is known.
pub(super) static ROUTE_LIMITS: Known = Known {
    header: "[route.limits]",
    keys: &[
        "request_body",
        "request_body_rate",
        "request_rate",
        "request_burst",
    ],
};

/// `[route.timeouts]`: what can be told once the route is known.
pub(super) static ROUTE_TIMEOUTS: Known = Known {
    header: "[route.timeouts]",
    keys: &[
        "request_body_idle",
        "upstream_connect",
        "upstream_response",
        "upstream_idle",
        "tunnel_idle",
    ],
};

/// Every table.
pub(super) static ALL: [&Known; 12] = [
    &TOP,
    &SERVER,
    &LOG,
    &SANDBOX,
    &LIMITS,
    &TIMEOUTS,
    &CERTIFICATE,
    &UPSTREAM,
    &APP,
    &ROUTE,
    &ROUTE_LIMITS,
    &ROUTE_TIMEOUTS,
];

impl Known {
    /// What to do about `key`, which this table does not take.
    pub(super) fn remedy(&self, key: &str) -> String {
        if !self.is_top() && TOP.keys.contains(&key) {
            return format!("{} is a table of its own", header(key));
        }
        let homes: Vec<&str> = ALL
            .iter()
            .filter(|known| !known.is_top() && known.keys.contains(&key))
            .map(|known| known.header)
            .collect();
        if !homes.is_empty() {
            return format!("`{key}` belongs to {}", homes.join(" or "));
        }
        let show = |key: &&str| match self.is_top() {
            true => header(key).to_owned(),
            false => format!("`{key}`"),
        };
        match nearest(key, self.keys.iter().copied()) {
            Some(nearest) => format!("did you mean {}?", show(&nearest)),
            None => {
                let keys: Vec<String> = self.keys.iter().map(show).collect();
                let keys = keys.join(", ");
                match self.is_top() {
                    true => format!("the tables are {keys}"),
                    false => format!("{} takes {keys}", self.header),
                }
            }
        }
    }

    /// Whether it is the top level.
    pub(super) fn is_top(&self) -> bool {
        self.header.is_empty()
    }
}

/// The header of a table at the top level.
pub(super) fn header(key: &str) -> &'static str {
    ALL.iter()
        .map(|known| known.header)
        .find(|header| {
            let name = header.trim_matches(['[', ']']);
            name.split('.').next() == Some(key)
        })
        .unwrap_or_default()
}

/// The word that `written` is most probably a slip of: about one character in three differs, or the end is missing.
pub(super) fn nearest<'a>(
    written: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let short = |word: &str| written.len() >= 4 && word.starts_with(written);
    words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(written, word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1) || short(word))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_names_the_other_table_the_nearest_key_or_all_keys() {
        for (known, key, remedy) in [
            (
                &TOP,
                "redirect_to_https",
                "`redirect_to_https` belongs to [server]",
            ),
            (
                &SERVER,
                "redirect_to_http",
                "did you mean `redirect_to_https`?",
            ),
            (&TIMEOUTS, "keepalive", "did you mean `keepalive_idle`?"),
            (&SERVER, "route", "[[route]] is a table of its own"),
            (&TOP, "sever", "did you mean [server]?"),
            (&TOP, "routes", "did you mean [[route]]?"),
            (&TOP, "upstreams", "did you mean [upstream.NAME]?"),
            (
                &ROUTE_LIMITS,
                "connections",
                "`connections` belongs to [limits]",
            ),
            (
                &SERVER,
                "request_head",
                "`request_head` belongs to [limits] or [timeouts]",
            ),
            (&LOG, "colour", "[log] takes `access`, `format`"),
        ] {
            assert_eq!(known.remedy(key), remedy);
        }
    }

    #[test]
    fn every_table_at_the_top_has_a_header() {
        for key in TOP.keys {
            assert!(header(key).contains(key), "{key}");
        }
    }
}
