//! Protocol: what a contestant is asked, a line of JSON each, and what it answers.

use serde::{Deserialize, Serialize};

/// What a contestant is to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Register the first users, as many as this. Logins are theirs.
    Seed {
        /// How many.
        users: u64,
    },
    /// Hash passwords and do nothing else.
    Hash {
        /// For how long callers begin further ones, in seconds; so in all that follow.
        seconds: f64,
    },
    /// Register further users.
    Register {
        /// See [`Ask::Hash`].
        seconds: f64,
    },
    /// Sign in users of the seed, drawn at random.
    Login {
        /// See [`Ask::Hash`].
        seconds: f64,
        /// Whether one password in ten is wrong.
        wrong: bool,
        /// What the draws begin with.
        draw: u64,
    },
    /// Sign in users of the seed whoever waits: open-loop, by a Poisson process.
    Flood {
        /// For how long users arrive.
        seconds: f64,
        /// How many arrive in a second.
        rate: f64,
    },
}

/// What a contestant answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is open; what it is, with versions.
    Ready(String),
    /// The seed is there; the head of a password's hash as it is stored, up to and with its costs.
    Seeded(String),
    /// What was done.
    Tally(Tally),
    /// It cannot go on.
    Failure(String),
}

/// What a contestant did in one round.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Registrations, logins or hashes that succeeded.
    pub good: u64,
    /// Wrong passwords that were found out.
    pub denied: u64,
    /// Requests that were turned away because there were too many.
    pub overloaded: u64,
    /// Of the good ones, how many were answered within [`Tally::IN_TIME`] of their arrival.
    pub in_time: u64,
    /// Until the last was answered and what it left to be done later was done, in seconds.
    pub seconds: f64,
    /// The time of processors that it took, in seconds.
    pub processor: f64,
    /// From arrival to answer of the good ones, in seconds: the 99th of a hundred.
    pub high: f64,
    /// Bytes of memory, at the end.
    pub resident: u64,
    /// Bytes of memory, at most.
    pub peak: u64,
}

impl Tally {
    /// For how long somebody waits for a login before giving up, in seconds.
    pub const IN_TIME: f64 = 2.0;

    /// What was answered in a second; each answer cost a hash.
    pub fn rate(&self) -> f64 {
        (self.good + self.denied) as f64 / self.seconds
    }

    /// Processor time for each answer, in seconds.
    pub fn cost(&self) -> f64 {
        self.processor / (self.good + self.denied) as f64
    }

    /// This, and what another process of the same contestant did beside it.
    pub fn beside(self, other: Self) -> Self {
        Self {
            good: self.good + other.good,
            denied: self.denied + other.denied,
            overloaded: self.overloaded + other.overloaded,
            in_time: self.in_time + other.in_time,
            seconds: self.seconds.max(other.seconds),
            processor: self.processor + other.processor,
            high: self.high.max(other.high),
            resident: self.resident + other.resident,
            peak: self.peak + other.peak,
        }
    }
}
