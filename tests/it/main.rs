//! The integration tests: one binary, a module a subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail, in its helping functions too"
)]

mod auditing;
mod generated;
mod listening;
mod notifying;
mod supervising;
