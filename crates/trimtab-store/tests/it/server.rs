//! A web server of a few lines that misbehaves on demand: one connection, one request, one answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came in; header names are in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Such as `GET /path`.
    pub(crate) line: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first byte asked for by `range: bytes=N-`.
    pub(crate) fn range_start(&self) -> Option<usize> {
        self.header("range")?
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Closes the connection after this many bytes of the body.
    pub(crate) cut_at: Option<usize>,
}

impl Answer {
    pub(crate) fn ok(body: &[u8]) -> Self {
        Self {
            status: 200,
            body: body.to_vec(),
            ..Self::default()
        }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// What a good server says to `request` about a file of content `body`.
    pub(crate) fn file(request: &Request, body: &[u8]) -> Self {
        let Some(start) = request.range_start() else {
            return Self::ok(body);
        };
        let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
        Self {
            status: 206,
            headers: vec![("content-range", range)],
            body: body[start..].to_vec(),
            cut_at: None,
        }
    }

    pub(crate) fn redirect(to: String) -> Self {
        Self {
            status: 302,
            headers: vec![("location", to)],
            ..Self::default()
        }
    }

    pub(crate) fn cut(self, cut_at: usize) -> Self {
        Self {
            cut_at: Some(cut_at),
            ..self
        }
    }
}

/// A running server. Its thread ends with the process.
pub(crate) struct Server {
    /// `http://127.0.0.1:PORT`.
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request by `respond`, which also gets the number of requests before it.
    pub(crate) fn start(respond: impl Fn(&Request, usize) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let Some(request) = read_request(&connection) else {
                    continue;
                };
                let count = log.lock().unwrap().len();
                log.lock().unwrap().push(request.clone());
                write_answer(connection, &request, &respond(&request, count));
            }
        });
        Self { address, seen }
    }

    /// The request lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|request| request.line.clone())
            .collect()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn read_request(connection: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(connection).lines();
    let line = lines.next()?.ok()?.rsplit_once(" HTTP")?.0.to_owned();
    let mut headers = Vec::new();
    for line in lines {
        let line = line.ok()?;
        let Some((key, value)) = line.split_once(':') else {
            break;
        };
        headers.push((key.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some(Request { line, headers })
}

/// The client may hang up at any time, so failures to write are of no interest.
fn write_answer(mut connection: TcpStream, request: &Request, answer: &Answer) {
    let mut head = format!(
        "HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (key, value) in &answer.headers {
        head.extend([key, ": ", value, "\r\n"]);
    }
    let _ = connection.write_all(format!("{head}\r\n").as_bytes());
    if !request.line.starts_with("HEAD") {
        let sent = answer.cut_at.unwrap_or(answer.body.len()).min(answer.body.len());
        let _ = connection.write_all(&answer.body[..sent]);
    }
}
