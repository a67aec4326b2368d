//! What the request path knows: about its worker, about a client connection, about one request.

mod activity;
mod conn;
mod flow;
mod intake;
mod load;
mod request;
mod worker;

pub use activity::{Activity, Overdue};
pub use conn::{Conn, Endpoints};
pub use flow::Flow;
pub use intake::Intake;
pub use load::{Load, Place};
pub use request::RequestCtx;
pub use worker::Worker;
