//! Runtimes for what has to wait.

use std::future::Future;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

/// One for all clients of this process, on a thread of its own.
pub fn shared() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = own();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

/// One for the caller alone, which runs on its thread.
pub fn own() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits for it on this thread, and ends all that it has begun.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    own().block_on(work)
}
