//! The socket that takes the place of syslog.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::files::set_mode;

/// Keeps every datagram, in order.
pub struct Collector {
    heard: Arc<Mutex<(Vec<String>, Instant)>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// Binds the socket at `path`.
    pub fn start(path: &Path) -> Collector {
        let socket = UnixDatagram::bind(path).expect("the audit socket");
        set_mode(path, 0o666);
        // The timeout lets the thread notice that it must end.
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a read timeout");
        let heard = Arc::new(Mutex::new((Vec::new(), Instant::now())));
        let stop = Arc::new(AtomicBool::new(false));
        let (sink, ended) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while !ended.load(Ordering::Relaxed) {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let mut heard = sink.lock().expect("no test panics here");
                    heard.0.push(line);
                    heard.1 = Instant::now();
                }
            }
        });
        Collector {
            heard,
            stop,
            thread: Some(thread),
        }
    }

    /// Returns every line so far, once no new one has come for a moment.
    pub fn lines(&self) -> Vec<String> {
        let quiet = Duration::from_millis(50);
        let since = Instant::now();
        loop {
            let heard = self.heard.lock().expect("no test panics here");
            if heard.1.max(since).elapsed() >= quiet {
                return heard.0.clone();
            }
            drop(heard);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
