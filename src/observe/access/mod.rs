//! The access log: a record is formatted into its worker's buffer, and one thread writes what the workers hand over. The
//! request path takes no lock, makes no system call and never waits for a disk or a pipe.

mod buffer;
mod escape;
mod record;
mod sink;

pub use buffer::LogBuffer;
pub use record::{AccessRecord, Clock};
pub use sink::LogSink;
