//! What lowport tells about itself: the access log, its own log, and the ids that tie both to what the client saw.

mod access;
mod allowance;
mod counters;
mod episode;
mod footprint;
mod ids;
pub mod trace;

pub use access::{AccessRecord, Clock, LogBuffer, LogSink};
pub use counters::{Count, Counters, Totals};
pub use episode::Episode;
pub use footprint::Footprint;
pub use ids::{IdSource, RequestId};
