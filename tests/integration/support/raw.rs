//! Bytes as they are: an upstream that records what it was sent and answers with what it is told, and a client.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use socket2::{Domain, Socket, Type};

use super::{PATIENCE, until};

/// An upstream of bytes. Each connection is handled by a thread; all end when this drops.
pub(crate) struct RawUpstream {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl RawUpstream {
    /// Reads one request head from each connection, then writes `answer` and closes.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::handling(move |head, stream| {
            let _ = head;
            let _ = stream.write_all(&answer);
        })
    }

    /// Calls `handle` with the head of each request and its connection; more heads are read while `handle` leaves it open.
    pub(crate) fn handling(handle: impl Fn(&[u8], &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handle, record) = (Arc::new(handle), Arc::clone(&seen));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (handle, record) = (Arc::clone(&handle), Arc::clone(&record));
                std::thread::spawn(move || {
                    if let Some(head) = read_head(&mut stream) {
                        record.lock().expect("unpoisoned").push(head.clone());
                        handle(&head, &mut stream);
                    }
                });
            }
        });
        Self { port, seen }
    }

    /// A route to it. The tests themselves are who runs it, root perhaps.
    pub(crate) fn route(&self) -> String {
        let (name, port) = (self.name(), self.port);
        format!(
            "[upstream.{name}]\npeers = \"127.0.0.1:{port}\"\nexpect_user = \"any\"\n[[route]]\nupstream = \"{name}\"\n"
        )
    }

    /// What [`route`](Self::route) names it.
    pub(crate) fn name(&self) -> String {
        format!("raw{}", self.port)
    }

    /// The heads that came, in order, as text.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen
            .lock()
            .expect("unpoisoned")
            .iter()
            .map(|head| String::from_utf8_lossy(head).into_owned())
            .collect()
    }

    /// The first head, as soon as it is there.
    pub(crate) fn first(&self) -> String {
        until("a request upstream", || self.seen().first().cloned())
    }
}

/// Reads up to the empty line; whatever follows is lost.
pub(crate) fn read_head(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(head)
}

/// Sends bytes and reads the answer to its end.
pub(crate) fn exchange(port: u16, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = connect(port);
    // The other side may have answered and closed already.
    let _ = stream.write_all(bytes.as_ref());
    read_all(&mut stream)
}

pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    // Nagle's algorithm would hold a second small write back until the first one is acknowledged: 40 ms.
    stream.set_nodelay(true).expect("set");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// The same from another address of this machine, 127.0.0.2.
pub(crate) fn connect_from_elsewhere(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let near = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    socket.bind(&near.into()).expect("bound");
    let far = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.connect(&far.into()).expect("connected");
    socket.set_tcp_nodelay(true).expect("set");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.into()
}

/// Whatever comes until the other side closes.
pub(crate) fn read_all(stream: &mut impl Read) -> String {
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&answer)),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}
