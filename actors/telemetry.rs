//! Telemetry: every figure that is told to the `metrics` facade, by name; nothing where the feature `metrics` is off.

use std::time::Duration;

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// The labels that it is told with. Each has few values: names of flows, reasons, signals, subscriptions.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub meaning: &'static str,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It is what it is at the moment.
    Gauge,
    /// Its values are spread.
    Histogram,
}

impl MetricKind {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    ($($constant:ident = $name:literal $kind:ident [$($label:ident)*] $meaning:literal)+) => {
        $(const $constant: &str = $name;)+

        /// Every figure, in the order of the table in `docs/METRICS.md`.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $constant,
            kind: MetricKind::$kind,
            labels: &[$(stringify!($label)),*],
            meaning: $meaning,
        }),+];
    };
}

metrics! {
    FLOWS = "majordomo_flows_total" Counter [flow outcome]
        "Flows that ended. `outcome` is `ok` or the name of the error."
    FLOW_SECONDS = "majordomo_flow_seconds" Histogram [flow]
        "How long flows took, from admission to answer, in seconds."
    FLOWS_UNDER_WAY = "majordomo_flows_under_way" Gauge []
        "Flows under way, told once a second."
    REFUSED = "majordomo_requests_refused_total" Counter [reason]
        "Requests that were refused at admission; no flow began for them."
    HASHES = "majordomo_hashes_total" Counter [job]
        "Passwords that were hashed or verified, decoys among them."
    HASHES_REFUSED = "majordomo_hashes_refused_total" Counter [job]
        "Jobs that found no place in the hasher's queue."
    HASH_WAIT_SECONDS = "majordomo_hash_wait_seconds" Histogram [job]
        "How long jobs waited for a hash thread, in seconds."
    HASH_SECONDS = "majordomo_hash_seconds" Histogram [job]
        "How long hash threads computed, in seconds."
    HASH_QUEUE = "majordomo_hash_queue" Gauge []
        "Jobs that wait for a hash thread, told once a second."
    TRANSACTIONS = "majordomo_transactions_total" Counter []
        "Durable transactions of the store."
    TRANSACTION_SECONDS = "majordomo_transaction_seconds" Histogram []
        "How long transactions took, in seconds."
    TRANSACTION_BATCHES = "majordomo_transaction_batches" Histogram []
        "How many batches were committed in one transaction."
    CONFLICTS = "majordomo_conflicts_total" Counter []
        "Batches that were refused because others had changed what was read; their flows decide again."
    REOPENINGS = "majordomo_store_reopenings_total" Counter []
        "How often the store was opened again after a fault."
    STORE_AVAILABLE = "majordomo_store_available" Gauge []
        "1 while the store can be read and written, else 0; told once a second."
    STORE_QUEUE = "majordomo_store_queue" Gauge []
        "Batches that wait for the writer or are being committed, told once a second."
    STORE_BYTES = "majordomo_store_bytes" Gauge []
        "The size of the store on its device, in bytes, told once a second."
    LOG_BYTES = "majordomo_log_bytes" Gauge []
        "The size of the signals that are kept, in bytes, told once a second."
    SIGNALS = "majordomo_signals_total" Counter [signal]
        "Signals that were committed."
    HANDLED = "majordomo_handled_total" Counter [subscription outcome]
        "What became of signals in handlers. `outcome` is `done`, `failed`, `deferred` or `given_up`."
    HANDLE_SECONDS = "majordomo_handle_seconds" Histogram [subscription]
        "How long handlers took over what they were handed, in seconds."
    LAG = "majordomo_subscription_lag" Gauge [subscription]
        "How many places of the log lie between what a subscription has handled and the last signal."
}

/// Whether anybody can listen.
pub(crate) const IS_TOLD: bool = cfg!(feature = "metrics");

/// What storage, hasher and user manager show once a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels {
    pub(crate) flows_under_way: usize,
    pub(crate) hash_queue: usize,
    pub(crate) store_available: bool,
    pub(crate) store_queue: u64,
    pub(crate) store_bytes: u64,
    pub(crate) log_bytes: u64,
}

pub(crate) fn flow(flow: &'static str, outcome: &'static str, took: Duration) {
    count(FLOWS, &[("flow", flow), ("outcome", outcome)]);
    spread(FLOW_SECONDS, &[("flow", flow)], took.as_secs_f64());
}

pub(crate) fn refused(reason: &'static str) {
    count(REFUSED, &[("reason", reason)]);
}

pub(crate) fn hashed(job: &'static str, waited: Duration, took: Duration) {
    count(HASHES, &[("job", job)]);
    spread(HASH_WAIT_SECONDS, &[("job", job)], waited.as_secs_f64());
    spread(HASH_SECONDS, &[("job", job)], took.as_secs_f64());
}

pub(crate) fn hash_refused(job: &'static str) {
    count(HASHES_REFUSED, &[("job", job)]);
}

pub(crate) fn transaction(batches: usize, took: Duration) {
    count(TRANSACTIONS, &[]);
    spread(TRANSACTION_SECONDS, &[], took.as_secs_f64());
    spread(TRANSACTION_BATCHES, &[], as_float(batches as u64));
}

pub(crate) fn conflict() {
    count(CONFLICTS, &[]);
}

pub(crate) fn store_reopened() {
    count(REOPENINGS, &[]);
}

pub(crate) fn signal(signal: &'static str) {
    count(SIGNALS, &[("signal", signal)]);
}

pub(crate) fn handled(subscription: &str, outcome: &'static str) {
    count(HANDLED, &[("subscription", subscription), ("outcome", outcome)]);
}

pub(crate) fn handed_over(subscription: &str, took: Duration) {
    spread(HANDLE_SECONDS, &[("subscription", subscription)], took.as_secs_f64());
}

pub(crate) fn lag(subscription: &str, places: u64) {
    level(LAG, &[("subscription", subscription)], as_float(places));
}

pub(crate) fn levels(levels: Levels) {
    level(FLOWS_UNDER_WAY, &[], as_float(levels.flows_under_way as u64));
    level(HASH_QUEUE, &[], as_float(levels.hash_queue as u64));
    level(STORE_AVAILABLE, &[], f64::from(u8::from(levels.store_available)));
    level(STORE_QUEUE, &[], as_float(levels.store_queue));
    level(STORE_BYTES, &[], as_float(levels.store_bytes));
    level(LOG_BYTES, &[], as_float(levels.log_bytes));
}

/// Figures beyond 2^53 lose their last digits.
#[allow(clippy::cast_precision_loss, reason = "a figure to look at")]
const fn as_float(figure: u64) -> f64 {
    figure as f64
}

type Labels<'a> = &'a [(&'static str, &'a str)];

#[cfg(feature = "metrics")]
mod facade {
    use metrics::Label;

    use super::Labels;

    fn owned(labels: Labels<'_>) -> Vec<Label> {
        labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect()
    }

    pub(super) fn count(name: &'static str, labels: Labels<'_>) {
        metrics::counter!(name, owned(labels)).increment(1);
    }

    pub(super) fn level(name: &'static str, labels: Labels<'_>, value: f64) {
        metrics::gauge!(name, owned(labels)).set(value);
    }

    pub(super) fn spread(name: &'static str, labels: Labels<'_>, value: f64) {
        metrics::histogram!(name, owned(labels)).record(value);
    }
}

#[cfg(not(feature = "metrics"))]
mod facade {
    use super::Labels;

    pub(super) const fn count(_name: &'static str, _labels: Labels<'_>) {}
    pub(super) const fn level(_name: &'static str, _labels: Labels<'_>, _value: f64) {}
    pub(super) const fn spread(_name: &'static str, _labels: Labels<'_>, _value: f64) {}
}

use facade::{count, level, spread};

/// The table of all figures, as `docs/METRICS.md` shows it.
#[must_use]
pub fn metrics_table() -> String {
    let mut table = "| metric | kind | labels | what it tells |\n|---|---|---|---|\n".to_owned();
    for Metric { name, kind, labels, meaning } in METRICS {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!("| `{name}` | {} | {} | {meaning} |\n", kind.as_str(), labels.join(", "));
    }
    table
}
