//! The settings of storage.

use std::time::Duration;

use majordomo_model::MaxLag;
use serde::{Deserialize, Serialize};

use super::EngineSettings;

/// How storage works; every field has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageSettings {
    /// How many batches may wait for the writer; beyond it `Overloaded`. Default 8,192.
    pub queue: usize,
    /// The most batches in one transaction. Default 1,024: less costs throughput and latency, more gains nothing.
    pub group: usize,
    /// How long progress that may be repeated (cursors, last seen) waits for a transaction to ride in. Default 250 ms.
    pub idle_flush: Duration,
    /// How long signals are kept at least; longer while a subscription has not handled them. Default 90 days.
    pub keep_signals: Duration,
    /// How far any subscription may lie behind before it lapses and no longer keeps the log from being pruned; its own
    /// limit holds beside it. Default 180 days, so that one which is gone for as long as signals are kept still loses
    /// nothing, and 4 GiB, about ten million signals, so that one that is gone for good does not fill the disk. What is
    /// given replaces both: a limit that is left out is none.
    pub max_lag: MaxLag,
    /// How much room the file system is to have left, in bytes: with less, registrations are answered
    /// `StorageUnavailable`, so that there is room for logins and for whatever frees some. Default 64 MiB; 0 is none.
    pub reserve_bytes: u64,
    /// How many live sessions are kept in memory, so that checking one that was checked lately reads nothing. Default
    /// 16,384, about 2 KiB each; one whose user is larger counts as several. 0 keeps none.
    pub sessions_kept: usize,
    /// The page cache. Default 128 MiB.
    pub engine: EngineSettings,
}

impl Default for StorageSettings {
    fn default() -> Self {
        let keep_signals = Duration::from_secs(90 * 24 * 3600);
        Self {
            queue: 8_192,
            group: 1_024,
            idle_flush: Duration::from_millis(250),
            keep_signals,
            max_lag: MaxLag { age: Some(keep_signals * 2), bytes: Some(4 << 30) },
            reserve_bytes: 64 << 20,
            sessions_kept: 16_384,
            engine: EngineSettings::default(),
        }
    }
}
