//! The least a Rust program takes: it starts and ends. With a path, it also
//! syncs what stands there: the least that anything durable takes.

fn main() {
    if let Some(path) = std::env::args_os().nth(1) {
        std::fs::File::open(path)
            .and_then(|file| file.sync_all())
            .expect("it can be synced");
    }
}
