//! The integration tests: one binary, a module a subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail, in its helping functions too"
)]

mod auditing;
#[cfg(feature = "webhook")]
mod breaches;
mod budgets;
mod canary;
mod chaos;
mod correcting;
mod credentials;
mod discretion;
mod fairness;
mod faults;
mod files;
mod flow_table;
mod gateways;
mod generated;
mod guarding;
mod health;
mod hijacking;
mod importing;
mod indistinct;
mod laws;
mod listening;
mod model;
mod notifying;
mod one_end;
mod operating;
mod person;
mod pumping;
mod registration;
mod retention;
mod routing;
mod sieges;
mod spans;
mod steps;
mod subscribing;
mod supervising;
mod sweeping;
mod takeover;
mod tampering;
mod throttling;
mod tokens;
mod undoing;
#[cfg(feature = "webhook")]
mod webhooks;
