//! The process: what it used of processors, memory and threads so far.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Failure;

/// The time that all threads of the process were on a processor.
#[must_use]
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}

/// The time that the threads which live now were on a processor, by their name, of which the kernel keeps 15 bytes.
/// It lags by a tick for a thread that runs.
///
/// # Errors
/// There is no `/proc`.
pub fn thread_times() -> Result<BTreeMap<String, Duration>, Failure> {
    let mut times = BTreeMap::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let path = thread?.path();
        // A thread may end between two looks.
        let (Ok(name), Ok(spent)) = (fs::read_to_string(path.join("comm")), fs::read_to_string(path.join("schedstat")))
        else {
            continue;
        };
        let spent = spent.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
        *times.entry(name.trim_end().to_owned()).or_default() += Duration::from_nanos(spent);
    }
    Ok(times)
}

/// What the kernel shows of the process.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Bytes of memory that are resident.
    pub resident: u64,
    /// The most bytes that were resident since the start or [`reset_peak`].
    pub peak: u64,
    /// Threads that live.
    pub threads: u64,
}

/// Reads what the kernel shows of the process.
///
/// # Errors
/// There is no `/proc`.
pub fn status() -> Result<Status, Failure> {
    let text = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| -> Result<u64, Failure> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("{name} is missing"))?;
        Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
    };
    Ok(Status { resident: field("VmRSS")? << 10, peak: field("VmHWM")? << 10, threads: field("Threads")? })
}

/// Makes the peak start at what is resident now.
///
/// # Errors
/// The kernel refuses.
pub fn reset_peak() -> Result<(), Failure> {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

/// Bytes as mebibytes.
#[must_use]
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
