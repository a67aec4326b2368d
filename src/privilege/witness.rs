//! Who can be asked about the processes at the other end of a connection once there is a sandbox.

use tokio::sync::{mpsc, oneshot};

use super::sock_diag::SockDiag;
use super::status::TaskState;

/// Whom a worker can ask. The default knows nothing.
#[derive(Debug, Default)]
pub struct Witness {
    /// Knows who owns a socket; `None` where the kernel does not tell
    pub sockets: Option<SockDiag>,
    /// Knows what a process may do; `None` where there is nobody who could read it
    pub processes: Option<Inquirer>,
}

/// Has questions about processes answered by whoever holds the other end: the thread that talks to the broker. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Inquirer(mpsc::UnboundedSender<Question>);

/// A question about a process.
#[derive(Debug)]
pub struct Question {
    /// Which one
    pub pid: u32,
    /// Takes what the kernel says of its first thread; `None` where that cannot be read
    pub answer: oneshot::Sender<Option<TaskState>>,
}

impl Inquirer {
    /// One, and where its questions arrive.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Question>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// What the kernel says of the first thread of the process `pid`; `None` where nobody can read that.
    pub async fn process(&self, pid: u32) -> Option<TaskState> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Question { pid, answer }).ok()?;
        answered.await.ok().flatten()
    }
}
