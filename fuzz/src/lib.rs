//! What the fuzz targets measure lowport against: plain and slow readings of the same rules, written from the RFCs and
//! the documentation rather than from the code, and hyper as lowport sets it up.
//!
//! A target is a file in `fuzz_targets` that calls lowport and one of these. `fuzz/run` builds and runs them.

pub mod fields;
pub mod introduced;
pub mod message;
pub mod pieces;
pub mod routes;
pub mod served;
