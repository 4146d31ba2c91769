//! Peers: majordomo beside what an app would use instead of it, the same work in turns, as ratios.
//!
//! `benches/peers/setup && benches/peers/run`. `ROUNDS=n` pairs of rounds (5) of `SECONDS=n` (5) with `USERS=n` (500) in the
//! seed, then a flood of `FLOOD=n` seconds (10); `QUICK=1` shows only that it works. What is compared is said in
//! benches/peers/README.md.

#![allow(clippy::print_stdout, reason = "it reports")]

mod comparison;
mod contestant;
mod library;
mod ours;
mod plain;
mod protocol;
mod team;
mod versions;

use std::path::Path;

use measure::Failure;

use crate::library::Library;
use crate::ours::Ours;
use crate::plain::{Make, Plain};

/// Is the contestant of that name until there is nothing more to do.
async fn be(name: &str, folder: &Path) -> Result<(), Failure> {
    match name {
        comparison::OURS => contestant::serve(Ours::open(folder).await?).await,
        comparison::LIBRARY => contestant::serve(Library::open(folder).await?).await,
        comparison::AUDITED => contestant::serve(Plain::open(folder, Make { audits: true, bounded: true })?).await,
        comparison::BARE => contestant::serve(Plain::open(folder, Make { audits: false, bounded: true })?).await,
        comparison::UNBOUNDED => contestant::serve(Plain::open(folder, Make { audits: true, bounded: false })?).await,
        other => Err(format!("nobody is called {other}").into()),
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [word, name, folder] if word == "be" => tokio::runtime::Runtime::new()?.block_on(be(name, Path::new(folder))),
        _ => comparison::run(),
    }
}
