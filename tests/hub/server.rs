//! A server on the loopback: threads, one request a connection, and replies that can be
//! spoilt on their way.

use consistency::Result;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// N of `Range: bytes=N-..`.
    pub fn start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

/// An answer, and how much of it is sent.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Only so many bytes of the body are sent.
    pub sent: Option<usize>,
    /// Nothing comes for so long before the headers.
    pub delay: Duration,
    /// After the headers and what is sent of the body, nothing comes for so long.
    pub pause: Duration,
    /// Not even the headers are sent.
    pub silent: bool,
    /// The connection is reset, not closed.
    pub reset: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        Self { status, body, ..Self::default() }.with("content-length", &length)
    }

    /// With this header, in place of one of the same name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }
}

/// What becomes of an honest reply.
pub type Fault = Arc<dyn Fn(&Request, Reply) -> Reply + Send + Sync>;
type Answer = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

struct Shared {
    answer: Answer,
    faults: Mutex<Vec<(Range<usize>, Fault)>>,
    seen: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

/// A server; it ends when this is dropped.
pub struct Server {
    shared: Arc<Shared>,
    address: String,
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            faults: Mutex::default(),
            seen: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let inside = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if inside.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&inside);
                std::thread::spawn(move || serve(&shared, stream));
            }
        });
        Ok(Self { shared, address })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Spoil the replies to the requests of these numbers, from 0.
    pub fn spoil(&self, requests: Range<usize>, fault: Fault) {
        open(&self.shared.faults).push((requests, fault));
    }

    /// Spoil nothing more.
    pub fn heal(&self) {
        open(&self.shared.faults).clear();
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        open(&self.shared.seen).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut request = read_head(&mut stream)?;
    // Of a request without a body one byte is still unread: a socket that is closed with
    // unread bytes resets its connection.
    let length: usize = request.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    if length > 0 {
        let mut rest = vec![0; length + 1];
        stream.read_exact(&mut rest).ok()?;
        request.body = rest.split_off(1);
    }
    let number = {
        let mut seen = open(&shared.seen);
        seen.push(request.clone());
        seen.len() - 1
    };
    let mut reply = (shared.answer)(&request);
    for (requests, fault) in open(&shared.faults).iter() {
        if requests.contains(&number) {
            reply = fault(&request, reply);
        }
    }
    if !reply.reset && length == 0 {
        stream.read_exact(&mut [0]).ok()?;
    }
    write(&mut stream, &request, &reply)
}

// All but the last byte of the head.
fn read_head(stream: &mut TcpStream) -> Option<Request> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ').map(str::to_string);
    let (method, path) = (first.next()?, first.next()?);
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
        .collect();
    Some(Request { method, path, headers, body: Vec::new() })
}

fn write(stream: &mut TcpStream, request: &Request, reply: &Reply) -> Option<()> {
    std::thread::sleep(reply.delay);
    if !reply.silent {
        let mut head = format!("HTTP/1.1 {} Status\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        if request.method != "HEAD" {
            let sent = reply.sent.unwrap_or(reply.body.len()).min(reply.body.len());
            stream.write_all(&reply.body[..sent]).ok()?;
        }
    }
    std::thread::sleep(reply.pause);
    Some(())
}
