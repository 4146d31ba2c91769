//! The crash test: the real system as a child under concurrent load, killed at random instants, restarted and judged.
//!
//! `KILLS=n` sets how many kills there are, `SEED=n` repeats the schedule of commands of an earlier run, and what is to
//! be killed in each round. Where exactly a kill falls, and who comes first to a name that several want, is up to the
//! machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail, in its helping functions too, and this one reports"
)]

#[cfg(unix)]
mod chaos;
#[cfg(unix)]
mod child;
#[cfg(unix)]
mod judge;
#[cfg(unix)]
mod life;
#[cfg(unix)]
mod link;
#[cfg(unix)]
mod load;
#[cfg(unix)]
mod person;
#[cfg(unix)]
mod poison;
#[cfg(unix)]
mod wire;

#[cfg(unix)]
fn main() {
    if let Some(folder) = std::env::var_os(link::CHILD_SERVES) {
        let terms = std::env::var(link::CHILD_TERMS).unwrap();
        return child::serve(folder.into(), serde_json::from_str(&terms).unwrap());
    }
    // Whoever lists tests, or looks for others by their name, is not kept waiting.
    let first = std::env::args().nth(1).unwrap_or_default();
    if std::env::args().any(|argument| argument == "--list") || !(first.starts_with('-') || "crash".contains(&first)) {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let fresh = || u64::from_be_bytes(majordomo::CommandId::new().as_bytes()[8..].try_into().unwrap()) >> 32;
    let (seed, kills) = (number("SEED").unwrap_or_else(fresh), number("KILLS").unwrap_or(60));
    if std::env::var_os(child::CHILD_LIES).is_none() {
        chaos::control(seed);
        poison::run();
    }
    chaos::run(seed, kills);
}

/// Elsewhere there is no such signal.
#[cfg(not(unix))]
fn main() {}
