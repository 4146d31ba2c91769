//! Spans: a flow is one span with its hops below it, inside the asker's, and none of them tells what is personal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use majordomo::testing::TestAccounts;
use majordomo::{Authenticate, Command, Context, Filter, Password, Register, Start};
use tracing::Instrument;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::listening::{PASSWORD, Recorder, soon};

/// A span, as it was told.
#[derive(Clone, Debug, Default)]
struct Told {
    name: &'static str,
    parent: Option<u64>,
    follows: Vec<u64>,
    fields: BTreeMap<&'static str, String>,
}

/// Keeps every span.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<BTreeMap<u64, Told>>>);

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        let span = context.span(id).unwrap();
        let mut told =
            Told { name: span.name(), parent: span.parent().map(|parent| number(&parent)), ..Told::default() };
        attributes.record(&mut Fields(&mut told.fields));
        let number = number(&span);
        span.extensions_mut().insert(Number(number));
        self.0.lock().unwrap().insert(number, told);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: LayerContext<'_, S>) {
        let number = number(&context.span(id).unwrap());
        values.record(&mut Fields(&mut self.0.lock().unwrap().get_mut(&number).unwrap().fields));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: LayerContext<'_, S>) {
        let (number, from) = (number(&context.span(id).unwrap()), number(&context.span(follows).unwrap()));
        self.0.lock().unwrap().get_mut(&number).unwrap().follows.push(from);
    }
}

/// The name of a span for life: the registry gives its own ids anew once a span has closed.
struct Number(u64);

fn number<'a, S: LookupSpan<'a>>(span: &tracing_subscriber::registry::SpanRef<'a, S>) -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let known = span.extensions().get::<Number>().map(|number| number.0);
    known.unwrap_or_else(|| NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

impl Spans {
    fn named(&self, name: &str) -> Vec<(u64, Told)> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|(_, told)| told.name == name).map(|(id, told)| (*id, told.clone())).collect()
    }

    fn below(&self, parent: u64, name: &str) -> Vec<(u64, Told)> {
        self.named(name).into_iter().filter(|(_, told)| told.parent == Some(parent)).collect()
    }
}

// One thread, so that what is told is told to the log of this test.
#[tokio::test]
async fn a_flow_is_a_span_of_its_asker_with_its_hops_below_it() {
    let spans = Spans::default();
    // While there is only one, tracing asks the thread that comes by first whether anybody listens, and remembers the
    // answer for all threads: a test beside this one would silence it.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let test = TestAccounts::start().await;
    soon(test.subscribe("ear", Filter::all(), Start::Beginning, Recorder::default())).await.unwrap();
    let request = Register {
        username: Some("ada".into()),
        email: Some("ada.lovelace@example.com".into()),
        ..Register::new(PASSWORD)
    };
    let context = Context::new().client_ip("192.0.2.77".parse().unwrap()).user_agent("Browser of Ada");
    let asked = async {
        let user = soon(test.register(Command::new(request).context(context.clone()))).await.unwrap().user;
        let wrong = Authenticate { identifier: "ada".into(), password: Password::new("a wrong password, surely") };
        soon(test.authenticate(Command::new(wrong).context(context))).await.unwrap_err();
        user
    };
    let user = asked.instrument(tracing::info_span!("request")).await;
    soon(test.drain()).await;
    let recorded = test.recorded();
    soon(test.shutdown()).await;

    let (request, _) = spans.named("request").remove(0);
    let flows = spans.below(request, "flow");
    let shown: Vec<_> =
        flows.iter().map(|(_, told)| (told.fields["kind"].as_str(), &*told.fields["outcome"])).collect();
    assert_eq!(shown, [("register", "ok"), ("authenticate", "invalid_credentials")]);
    for (flow, told) in &flows {
        assert_eq!(told.fields["user"], user.to_string());
        let signals = recorded.iter().filter(|envelope| envelope.flow.to_string() == told.fields["flow"]);
        assert!(signals.count() >= 2, "the flow's id leads to its signals");
        assert_eq!(spans.below(*flow, "hash").len(), 1);
        let commits = spans.below(*flow, "commit");
        assert_eq!(commits.len(), 1);
        let transactions = spans.named("transaction");
        let of_commit = |(_, told): &&(u64, Told)| told.follows.contains(&commits[0].0);
        assert_eq!(transactions.iter().filter(of_commit).count(), 1, "{transactions:?}");
        let handled: Vec<_> = spans.named("handle").into_iter().map(|(_, handled)| handled.fields).collect();
        let of_flow =
            |fields: &&BTreeMap<&str, String>| fields["subscription"] == "ear" && fields["flow"] == told.fields["flow"];
        assert!(handled.iter().filter(of_flow).count() >= 2);
    }
    let everything = format!("{:?}", spans.0.lock().unwrap());
    for personal in ["lovelace", PASSWORD, "wrong password", "192.0.2.77", "Browser of Ada", "\"ada\""] {
        assert!(!everything.contains(personal), "{personal} in {everything}");
    }
}
