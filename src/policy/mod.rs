//! What a client may do, beyond what HTTP says.

mod rate;

pub use rate::Rates;
