//! Metrics: what is told to the facade is what the table says, and it is true.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail, in its helping functions too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{Authenticate, METRICS, Metric, MetricKind, Password, Register};
use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};

const PASSWORD: &str = "nine lanterns over a quiet harbour";

/// Keeps everything that is told, by name and labels.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<Name, Vec<f64>>>>);

/// The kind, the name and the labels.
type Name = (&'static str, String, Vec<(String, String)>);

struct Entry {
    ledger: Ledger,
    kind: MetricKind,
    key: Key,
}

impl Entry {
    fn keep(&self, value: f64) {
        let mut labels: Vec<_> =
            self.key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        labels.sort();
        let name = (self.kind.as_str(), self.key.name().to_owned(), labels);
        self.ledger.0.lock().unwrap().entry(name).or_default().push(value);
    }
}

impl CounterFn for Entry {
    fn increment(&self, value: u64) {
        (0..value).for_each(|_| self.keep(1.0));
    }
    fn absolute(&self, _value: u64) {
        panic!("counters are counted up");
    }
}

impl GaugeFn for Entry {
    fn increment(&self, _value: f64) {
        panic!("gauges are set");
    }
    fn decrement(&self, _value: f64) {
        panic!("gauges are set");
    }
    fn set(&self, value: f64) {
        self.keep(value);
    }
}

impl HistogramFn for Entry {
    fn record(&self, value: f64) {
        self.keep(value);
    }
}

impl Ledger {
    fn entry(&self, kind: MetricKind, key: &Key) -> Arc<Entry> {
        Arc::new(Entry { ledger: self.clone(), kind, key: key.clone() })
    }

    fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let labels: Vec<_> = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let ledger = self.0.lock().unwrap();
        ledger
            .iter()
            .find(|((_, known, told), _)| known == name && *told == labels)
            .map_or(Vec::new(), |(_, v)| v.clone())
    }
}

impl metrics::Recorder for Ledger {
    fn describe_counter(&self, _name: KeyName, _unit: Option<Unit>, _description: SharedString) {}
    fn describe_gauge(&self, _name: KeyName, _unit: Option<Unit>, _description: SharedString) {}
    fn describe_histogram(&self, _name: KeyName, _unit: Option<Unit>, _description: SharedString) {}

    fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.entry(MetricKind::Counter, key))
    }
    fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.entry(MetricKind::Gauge, key))
    }
    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.entry(MetricKind::Histogram, key))
    }
}

async fn soon<T>(waiting: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it did not come to pass within 30 seconds")
}

// The recorder is the process', so this binary has one test.
#[tokio::test]
async fn what_is_told_is_what_the_table_says_and_it_is_true() {
    let ledger = Ledger::default();
    metrics::set_global_recorder(ledger.clone()).unwrap();
    let test = TestAccounts::start().await;
    let request =
        Register { username: Some("ada".into()), email: Some("ada@example.com".into()), ..Register::new(PASSWORD) };
    soon(test.register(request)).await.unwrap();
    for password in [PASSWORD, PASSWORD, "a wrong one, surely", "and another wrong one"] {
        let _ =
            soon(test.authenticate(Authenticate { identifier: "ada".into(), password: Password::new(password) })).await;
    }
    soon(test.drain()).await;
    soon(async {
        while ledger.values("majordomo_flows_under_way", &[]).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let recorded = test.recorded();
    soon(test.shutdown()).await;

    let count = |name: &str, labels: &[(&str, &str)]| ledger.values(name, labels).len();
    assert_eq!(count("majordomo_flows_total", &[("flow", "register"), ("outcome", "ok")]), 1);
    // An account whose address is not proven may not sign in; the right password is told so.
    assert_eq!(count("majordomo_flows_total", &[("flow", "authenticate"), ("outcome", "email_not_verified")]), 2);
    assert_eq!(count("majordomo_flows_total", &[("flow", "authenticate"), ("outcome", "invalid_credentials")]), 2);
    assert_eq!(count("majordomo_flow_seconds", &[("flow", "authenticate")]), 4);
    assert_eq!(count("majordomo_hashes_total", &[("job", "verify")]), 4);
    assert_eq!(count("majordomo_hashes_total", &[("job", "hash")]), 1);
    for kind in recorded.iter().map(|told| told.signal.kind()).collect::<BTreeSet<_>>() {
        let stored = recorded.iter().filter(|told| told.signal.kind() == kind).count();
        assert_eq!(count("majordomo_signals_total", &[("signal", kind.as_str())]), stored, "{kind:?}");
    }
    let audited = [("outcome", "done"), ("subscription", "auditor")];
    assert_eq!(count("majordomo_handled_total", &audited), recorded.len());
    assert_eq!(ledger.values("majordomo_subscription_lag", &[("subscription", "auditor")]).last(), Some(&0.0));
    assert_eq!(ledger.values("majordomo_store_available", &[]).first(), Some(&1.0));
    let batches: f64 = ledger.values("majordomo_transaction_batches", &[]).iter().sum();
    assert!(batches >= 5.0 && count("majordomo_transactions_total", &[]) > 0);

    let told: Vec<_> = ledger.0.lock().unwrap().keys().cloned().collect();
    for (kind, name, labels) in told {
        let known =
            METRICS.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name} is in no table"));
        let Metric { kind: expected, labels: names, .. } = known;
        assert_eq!(kind, expected.as_str(), "{name}");
        let told: BTreeSet<_> = labels.iter().map(|(label, _)| label.as_str()).collect();
        assert_eq!(told, names.iter().copied().collect(), "{name}");
        for (_, value) in labels {
            assert!(!value.contains("ada"), "{name} tells {value}");
        }
    }
}
