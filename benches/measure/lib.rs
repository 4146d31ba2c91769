//! What the benchmarks share: turns that alternate, ratios with their interval, open-loop load, figures of the process, reports.

#![allow(clippy::print_stdout, reason = "a benchmark reports")]

pub mod apart;
pub mod arrivals;
pub mod pairs;
pub mod plot;
pub mod process;
pub mod report;
pub mod world;

/// Whatever makes a benchmark fail.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A number from the environment, or its default: `default` in the short set, `quick` where `QUICK` is set, which only
/// shows that the benchmark works.
///
/// # Errors
/// The variable holds no number.
pub fn setting(name: &str, default: u64, quick: u64) -> Result<u64, Failure> {
    match std::env::var(name) {
        Ok(text) => Ok(text.parse().map_err(|error| format!("{name}: {error}"))?),
        Err(_) => Ok(if is_quick() { quick } else { default }),
    }
}

/// Whether the run only shows that the benchmark works.
#[must_use]
pub fn is_quick() -> bool {
    std::env::var_os("QUICK").is_some()
}
