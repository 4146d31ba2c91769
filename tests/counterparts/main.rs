//! Real counterparts: what is sent is taken by programs that others wrote, on loopback.
//!
//! `tests/counterparts/setup` installs them; then
//! `cargo test --features email,webhook,testing --test counterparts`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail, in its helping functions too"
)]

mod counterpart;
mod mail;
mod webhooks;
