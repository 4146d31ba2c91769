//! The host: a thread and a runtime of its own for code of the app, so that whoever blocks there stands in nobody's way.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::priority::step_back;

/// How many threads the guest's own `spawn_blocking` may use.
const BLOCKING_THREADS: usize = 16;

/// What a guest is, which says what it may do and how far it steps back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guest {
    /// It handles what is committed already: nobody waits for it.
    Subscriber,
    /// It is asked before a commit: somebody waits, and it must not ask the system in turn.
    Guard,
}

impl Guest {
    const fn niceness(self) -> i32 {
        match self {
            Self::Subscriber => 19,
            Self::Guard => 5,
        }
    }
}

thread_local! {
    static GUEST: Cell<Option<Guest>> = const { Cell::new(None) };
}

/// Which guest the calling thread belongs to.
pub(crate) fn guest() -> Option<Guest> {
    GUEST.get()
}

/// A thread with a runtime, for one guest.
///
/// Dropping it ends the runtime: tasks are dropped where they next wait. A guest that blocks its thread cannot be
/// ended; it is left to itself, and nobody waits for it.
#[derive(Debug)]
pub(crate) struct Host {
    runtime: Handle,
    _alive: oneshot::Sender<Infallible>,
}

impl Host {
    /// Starts the thread.
    ///
    /// # Errors
    /// The machine has no thread or no file descriptor left.
    pub(crate) fn start(name: &str, guest: Guest) -> io::Result<Self> {
        let settle = move || {
            GUEST.set(Some(guest));
            step_back(guest.niceness());
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name(format!("majordomo-{name}-blocking"))
            .max_blocking_threads(BLOCKING_THREADS)
            .on_thread_start(settle)
            .build()?;
        let (alive, ended) = oneshot::channel::<Infallible>();
        let handle = runtime.handle().clone();
        let dispatch = scoped_dispatch();
        thread::Builder::new().name(format!("majordomo-{name}")).spawn(move || {
            settle();
            let _guard = dispatch.as_ref().map(tracing::dispatcher::set_default);
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _alive: alive })
    }

    /// Runs a future on the thread. Its panic is the task's own, told by the handle.
    pub(crate) fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.spawn(future)
    }
}

/// Where the starting thread logs, if anywhere: the guest logs there too.
fn scoped_dispatch() -> Option<tracing::Dispatch> {
    let here = tracing::dispatcher::get_default(Clone::clone);
    (!here.is::<tracing::subscriber::NoSubscriber>()).then_some(here)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_guest_knows_its_part_and_its_panic_is_its_own() {
        let host = Host::start("test", Guest::Guard).unwrap();
        assert_eq!(host.spawn(async { guest() }).await.unwrap(), Some(Guest::Guard));
        let blocking = host.spawn(async { tokio::task::spawn_blocking(guest).await });
        assert_eq!(blocking.await.unwrap().unwrap(), Some(Guest::Guard));
        let panicking = host.spawn(async { panic!("on purpose") });
        assert!(panicking.await.unwrap_err().is_panic());
        assert_eq!(host.spawn(async { 7 }).await.unwrap(), 7);
        assert_eq!(guest(), None);
    }

    #[tokio::test]
    async fn a_guest_that_blocks_its_thread_holds_up_neither_the_runtime_nor_the_drop() {
        let host = Host::start("test", Guest::Subscriber).unwrap();
        let (release, blocked) = mpsc::channel::<()>();
        let task = host.spawn(async move { blocked.recv_timeout(Duration::from_secs(60)).is_ok() });
        drop(host);
        release.send(()).unwrap();
        // Whether it is told its end or is dropped at its next wait is the runtime's affair; it does not hang.
        let _ = tokio::time::timeout(Duration::from_secs(30), task).await.unwrap();
    }
}
