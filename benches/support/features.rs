//! What there is to be had with and without.

use crate::support::{SETUP, Setup};

/// What it is called, with it, and without it.
pub(crate) type Feature = (&'static str, Setup<'static>, Setup<'static>);

/// All but the sandbox, whose cost is the kernel's.
pub(crate) const FEATURES: [Feature; 4] = [
    (
        "who runs the upstream",
        Setup {
            // Root here, perhaps: it is looked at all the same.
            guard: "on_mismatch = \"warn\"",
            ..SETUP
        },
        SETUP,
    ),
    (
        "limits of requests",
        Setup {
            tables: "[limits]\nrequest_rate = \"1000000/s\"\nrequest_burst = 1000000\nrequests_in_flight = 1000000\n\
                     requests_per_connection = 1000000000\nconnections_per_ip = 100000\n",
            ..SETUP
        },
        SETUP,
    ),
    (
        "hibernation",
        SETUP,
        Setup {
            tables: "[timeouts]\nhibernate = 0\n",
            ..SETUP
        },
    ),
    (
        "access log",
        Setup {
            log: "./access.log",
            ..SETUP
        },
        SETUP,
    ),
];
