//! A worker's access records on their way to the writer.

use std::cell::RefCell;
use std::time::SystemTime;

use super::record::{AccessRecord, Clock};
use super::sink::LogSink;

/// Bytes that are handed over without waiting for the flush.
pub(super) const FULL: usize = 32 * 1024;

/// One worker's records, formatted; nobody else touches them until they are handed over.
#[derive(Debug)]
pub struct LogBuffer {
    sink: LogSink,
    pending: RefCell<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    clock: Clock,
}

impl LogBuffer {
    /// An empty one.
    pub fn new(sink: LogSink) -> Self {
        Self {
            sink,
            pending: RefCell::default(),
        }
    }

    /// Whether there is an access log at all. Follows a reload.
    pub fn is_on(&self) -> bool {
        self.sink.is_on()
    }

    /// Adds a record. True if it is alone: somebody must call [`flush`](Self::flush) in a moment.
    pub fn write(&self, record: &AccessRecord<'_>) -> bool {
        let Pending { bytes, clock } = &mut *self.pending.borrow_mut();
        let first = bytes.is_empty();
        clock.set(SystemTime::now());
        if self.sink.is_json() {
            record.json(bytes, clock);
        } else {
            record.combined(bytes, clock);
        }
        if bytes.len() >= FULL {
            self.sink.take(bytes);
            return false;
        }
        first
    }

    /// Hands over what there is. Never blocks.
    pub fn flush(&self) {
        let bytes = &mut self.pending.borrow_mut().bytes;
        if !bytes.is_empty() {
            self.sink.take(bytes);
        }
    }
}
