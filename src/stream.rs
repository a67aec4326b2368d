//! A byte stream to a client or a peer, whatever it runs over.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

/// A connected stream. An enum, so that reading and writing are direct calls.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP
    Tcp(TcpStream),
    /// A Unix socket
    Unix(UnixStream),
    /// TLS, we are the server. Boxed: its state is a kilobyte
    TlsServer(Box<server::TlsStream<TcpStream>>),
    /// TLS, we are the client
    TlsClient(Box<client::TlsStream<TcpStream>>),
}

/// What a socket holds, as numbers that `sock_diag(7)` explains (`INET_DIAG_SKMEMINFO`).
#[derive(Debug, Clone, Copy)]
struct Memory;

nix::getsockopt_impl!(
    Memory,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    [u32; libc::SK_MEMINFO_BACKLOG as usize + 1],
    GetStruct<[u32; libc::SK_MEMINFO_BACKLOG as usize + 1]>
);

impl Stream {
    /// Whether what is read and written is not what is on the socket.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::TlsServer(_) | Self::TlsClient(_))
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::TlsServer(stream) => Some(stream.get_ref().0),
            Self::TlsClient(stream) => Some(stream.get_ref().0),
            Self::Unix(_) => None,
        }
    }

    /// How much the kernel holds of what was written and not received yet, in bytes of its memory: that it becomes less
    /// says that the other side reads, long before there is room for another write. `None` where it does not tell.
    pub fn unsent(&self) -> Option<u32> {
        let memory = getsockopt(self.tcp()?, Memory).ok()?;
        Some(memory[libc::SK_MEMINFO_WMEM_QUEUED as usize])
    }

    /// Ready when something has arrived on the socket, with nothing of it read: over TLS that need not be what reading would
    /// give.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::TlsServer(stream) => stream.get_ref().0.poll_read_ready(cx),
            Self::TlsClient(stream) => stream.get_ref().0.poll_read_ready(cx),
        }
    }

    /// Does `io` with the socket, which is to be told by `WouldBlock` when that has to wait: for bytes to read, or for room to
    /// write.
    ///
    /// # Errors
    /// Those of `io`. `Unsupported` over TLS: what is on the socket is not what the stream is about.
    pub fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        mut io: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        macro_rules! over {
            ($stream:ident) => {
                loop {
                    if interest.is_readable() {
                        ready!($stream.poll_read_ready(cx))?;
                    } else {
                        ready!($stream.poll_write_ready(cx))?;
                    }
                    match $stream.try_io(interest, || io($stream.as_fd())) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        done => return Poll::Ready(done),
                    }
                }
            };
        }
        match self {
            Self::Tcp(stream) => over!(stream),
            Self::Unix(stream) => over!(stream),
            Self::TlsServer(_) | Self::TlsClient(_) => {
                Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
            }
        }
    }

    /// Whether something has arrived on the socket, whoever may have heard of it yet: the kernel is asked.
    pub fn has_arrived(&self) -> bool {
        let socket = match self {
            Self::Unix(stream) => SockRef::from(stream),
            Self::Tcp(stream) => SockRef::from(stream),
            Self::TlsServer(stream) => SockRef::from(stream.get_ref().0),
            Self::TlsClient(stream) => SockRef::from(stream.get_ref().0),
        };
        socket
            .peek(&mut [MaybeUninit::uninit()])
            .is_ok_and(|bytes| bytes > 0)
    }

    /// Whatever has not left yet is thrown away when this is dropped, and the other side is told: to wait for one that does
    /// not read would keep it in the kernel's memory.
    pub fn reset_on_close(&self) {
        if let Some(tcp) = self.tcp() {
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::TlsServer($stream) => $call,
            Stream::TlsClient($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::TlsServer(stream) => stream.is_write_vectored(),
            Self::TlsClient(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
