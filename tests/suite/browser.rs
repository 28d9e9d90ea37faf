//! A tab of a real Chromium that was opened before two swaps and a rollback loads a part
//! of its page after them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::archive::tarball;
use crate::bridge::{bridged_site, documented_servers};
use crate::direct::{ask, serve};
use crate::process::{Running, eventually};
use crate::site::Site;
use crate::web::Nginx;

/// Long enough for a slow, busy machine; only a browser that hangs exceeds it.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Debian has this package. Ubuntu has Chromium only as a snap, which needs systemd.
const PROGRAM: &str = "/usr/bin/chromium-headless-shell";

/// A running Chromium, and the pipe over which it is driven (Chrome DevTools Protocol,
/// `--remote-debugging-pipe`: JSON texts that NUL ends).
struct Browser {
    _process: Running,
    to: ChildStdin,
    answers: Receiver<Value>,
    last: u64,
}

impl Browser {
    fn start(site: &Site) -> Browser {
        let profile = site.dir().join("browser");
        // It reads descriptor 3 and writes descriptor 4.
        let script = format!(
            "exec {PROGRAM} --no-sandbox --disable-gpu --disable-dev-shm-usage \
             --disable-background-networking --no-first-run --remote-debugging-pipe \
             --user-data-dir='{}' about:blank 3<&0 4>&1 > /dev/null",
            profile.display()
        );
        let mut process = Command::new("/bin/sh")
            .args(["-c", &script])
            .env_clear()
            .env("HOME", site.dir())
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let to = process.stdin.take().expect("a pipe");
        let mut from = BufReader::new(process.stdout.take().expect("a pipe"));
        let (send, answers) = channel();
        // Terminates: the browser ends with its test, and closes the pipe.
        thread::spawn(move || {
            loop {
                let mut text = Vec::new();
                let read = from.read_until(0, &mut text);
                if read.is_err() || text.pop().is_none() {
                    return;
                }
                let answer = serde_json::from_slice(&text).expect("JSON");
                if send.send(answer).is_err() {
                    return;
                }
            }
        });
        Browser {
            _process: Running(process),
            to,
            answers,
            last: 0,
        }
    }

    /// Sends a command, and returns its result.
    fn command(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        write!(self.to, "{command}\0").expect("the browser reads");
        loop {
            let answer = self.answers.recv_timeout(TIMEOUT).expect("an answer");
            // The others are events.
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// Opens a tab, and waits until the script of its page has run.
    fn open(&mut self, url: &str) -> Tab {
        let created = self.command(None, "Target.createTarget", json!({"url": url}));
        let attach = json!({"targetId": created["targetId"], "flatten": true});
        let attached = self.command(None, "Target.attachToTarget", attach);
        let tab = Tab(attached["sessionId"].as_str().expect("an id").to_owned());
        eventually("the page is loaded", || {
            self.run(&tab, "typeof more") == "function"
        });
        tab
    }

    /// Runs a script in a tab, and returns its value or the error.
    fn run(&mut self, tab: &Tab, script: &str) -> String {
        let params = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        let result = self.command(Some(&tab.0), "Runtime.evaluate", params);
        let value = &result["result"]["value"];
        value
            .as_str()
            .map_or_else(|| result.to_string(), str::to_owned)
    }
}

impl Drop for Browser {
    /// Lets the browser end by itself: a process of it that outlived it would write into
    /// the directory of the test while that is removed.
    fn drop(&mut self) {
        let close = json!({"id": 0, "method": "Browser.close"});
        if write!(self.to, "{close}\0").is_ok() {
            // Terminates: it closes the pipe at its end, or is silent.
            while self.answers.recv_timeout(TIMEOUT).is_ok() {}
        }
    }
}

/// The session of a tab.
struct Tab(String);

/// Returns a release as bundlers make it: a page, its script, and a part that the script
/// loads when it needs it. The names have a hash of the content.
fn release(id: &str) -> Vec<u8> {
    let page =
        format!("<!doctype html><title>{id}</title><script src=/assets/app-{id}.js></script>");
    let app = format!(
        "window.more = () => import('/assets/more-{id}.js')\
         .then(part => part.text, () => 'failed');"
    );
    let more = format!("export const text = 'more of {id}';");
    tarball(&[
        ("index.html", page.as_bytes()),
        (&format!("assets/app-{id}.js"), app.as_bytes()),
        (&format!("assets/more-{id}.js"), more.as_bytes()),
    ])
}

fn deploy(site: &Site, id: &str) {
    let payload = release(id);
    let request = Site::receive_command(id, &payload);
    site.run(serve(site, "ci", request), &payload).ok();
    ask(site, &format!("swap {id}")).ok();
}

#[test]
fn a_tab_of_an_old_release_loads_its_part_after_two_swaps_and_a_rollback() {
    if !Path::new(PROGRAM).exists() {
        println!("skipped: there is no {PROGRAM}");
        return;
    }
    let site = bridged_site("");
    deploy(&site, "a");
    let bridged = documented_servers(&site, "Files of old releases").remove(0);
    // A browser runs a module only if it has the type of a script.
    let types = "include /etc/nginx/mime.types;";
    let plain = format!("root {}/current;", site.root().display());
    let servers = [bridged, plain].map(|server| format!("{types}\n{server}"));
    let nginx = Nginx::start(&site, &servers);
    let url = |port: usize| format!("http://127.0.0.1:{}/", nginx.ports[port]);
    let mut browser = Browser::start(&site);
    let tabs = [browser.open(&url(0)), browser.open(&url(1))];
    deploy(&site, "b");
    deploy(&site, "c");
    ask(&site, "rollback").ok();
    assert_eq!(site.current().as_deref(), Some("b"));
    assert_eq!(browser.run(&tabs[0], "document.title"), "a");
    assert_eq!(browser.run(&tabs[0], "more()"), "more of a");
    // The control: without the bridge, the part is gone.
    assert_eq!(browser.run(&tabs[1], "document.title"), "a");
    assert_eq!(browser.run(&tabs[1], "more()"), "failed");
    // A new tab gets the live release.
    let new = browser.open(&url(0));
    assert_eq!(browser.run(&new, "more()"), "more of b");
}
