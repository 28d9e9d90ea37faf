//! A small web service: a thread that answers each request as the test says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The reaction to a request.
pub enum Answer {
    /// Answers with a status and a body.
    Text(u16, String),
    /// Answers with a redirect.
    Elsewhere(&'static str),
    /// Sends nothing and keeps the connection open.
    Silence,
    /// Sends half of an answer, then nothing.
    Half,
    /// Closes the connection.
    Hangup,
    /// Closes the connection and stops listening.
    Death,
}

pub fn ok(body: &str) -> Answer {
    Answer::Text(200, format!("release {body}\n"))
}

pub struct Service {
    pub port: u16,
    requested: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts the service. `answer` receives the path of each request and the number
    /// of requests before it.
    pub fn start(mut answer: impl FnMut(&str, usize) -> Answer + Send + 'static) -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let requested = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (heard, ended) = (Arc::clone(&requested), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let Some((mut stream, path)) = stream.ok().and_then(path) else {
                    continue;
                };
                let mut heard = heard.lock().expect("no test panics here");
                let before = heard.len();
                heard.push(path.clone());
                drop(heard);
                let text = match answer(&path, before) {
                    Answer::Text(status, body) => format!(
                        "HTTP/1.1 {status} It is so\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ),
                    Answer::Elsewhere(location) => {
                        format!("HTTP/1.1 302 There\r\nLocation: {location}\r\n\r\n")
                    }
                    Answer::Half => {
                        open.push(stream.try_clone().expect("a descriptor"));
                        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nrele".to_owned()
                    }
                    Answer::Silence => {
                        open.push(stream);
                        continue;
                    }
                    Answer::Hangup => continue,
                    Answer::Death => return,
                };
                // The client may have closed the connection.
                let _ = stream.write_all(text.as_bytes());
            }
        });
        Service {
            port,
            requested,
            stop,
            thread: Some(thread),
        }
    }

    /// Returns the paths of the requests, in order.
    pub fn requested_paths(&self) -> Vec<String> {
        self.requested.lock().expect("no test panics here").clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// Reads a request to its end.
fn path(mut stream: TcpStream) -> Option<(TcpStream, String)> {
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).ok()?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let path = text.strip_prefix("GET ")?.split(' ').next()?;
    Some((stream, path.to_owned()))
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread. This fails if it no longer listens.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
