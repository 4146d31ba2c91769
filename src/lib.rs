//! User accounts for a Rust app, as a supervised actor system with durable signals.
