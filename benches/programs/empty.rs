//! Starts and ends: the minimum time of a Rust program. With a path, it also syncs
//! that path: the minimum time of anything durable.

fn main() {
    if let Some(path) = std::env::args_os().nth(1) {
        std::fs::File::open(path)
            .and_then(|file| file.sync_all())
            .expect("it can be synced");
    }
}
