//! TLS on both sides: certificates by name for clients, trusted authorities for peers, and the local authority of
//! `lowport dev`.

mod base64;
mod certificate;
mod config;
mod dev_ca;
mod pem;
mod store;
#[cfg(test)]
mod testing;
mod trust;
mod unverified;

pub use certificate::Certificate;
pub use config::{Terms, Ticketer, client_config};
pub use dev_ca::{DevCa, DevCaError};
pub use store::Store;
pub use trust::trust_help;
pub use unverified::unverified;
