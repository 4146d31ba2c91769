//! The priority of a thread, which work that nobody waits for gives way with.

/// Lowers the priority of the calling thread to this niceness, 0 to 19, where the system can do so for one thread; on
/// Linux `setpriority` with a thread id touches that thread alone.
#[cfg(target_os = "linux")]
pub(crate) fn step_back(niceness: i32) {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

/// Does nothing: there is no way to do so for one thread.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn step_back(_niceness: i32) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;
    use rustix::thread::gettid;

    use super::*;

    #[test]
    fn a_thread_steps_back_alone() {
        let before = getpriority_process(Some(gettid())).unwrap();
        let stepped = std::thread::spawn(|| {
            step_back(10);
            getpriority_process(Some(gettid())).unwrap()
        });
        assert!(stepped.join().unwrap() >= 10);
        assert_eq!(getpriority_process(Some(gettid())).unwrap(), before);
    }
}
