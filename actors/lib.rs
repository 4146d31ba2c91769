//! The engine room of majordomo: every actor, and the parts that they share.

pub mod clock;
pub mod storage;
