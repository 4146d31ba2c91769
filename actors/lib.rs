//! The engine room of majordomo: every actor, and the parts that they share.

pub mod address;
pub mod clock;
pub mod gauge;
pub mod supervision;
