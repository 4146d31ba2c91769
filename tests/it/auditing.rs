//! Auditing: every signal has one record, found by user, kind and flow, for as long as the store lives.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use majordomo::testing::TestAccounts;
use majordomo::{
    Accounts, Actor, AuditPage, AuditQuery, AuditRecord, Command, ConfirmEmail, Context, Delete, Disable, Enable,
    Envelope, Error, FlowId, Lane, Proof, Register, SignalKind, UserId,
};

use crate::listening::{PASSWORD, login, register, soon};

/// Some of everything: users, logins, refusals, deliveries, a deletion.
async fn busy_day(test: &TestAccounts) -> Vec<UserId> {
    let mut users = Vec::new();
    for name in ["ada", "bob", "eve"] {
        users.push(register(test, name).await);
        for identifier in [name, "nobody", name] {
            let _ = soon(test.authenticate(login(identifier))).await;
        }
    }
    let request = Register { email: Some("dora@example.com".to_owned()), ..Register::new(PASSWORD) };
    users.push(soon(test.register(request)).await.unwrap().user);
    soon(test.drain()).await;
    let proof = Proof::from_link(test.messages().last_to("dora@example.com").unwrap().link().unwrap()).unwrap();
    soon(test.confirm_email(ConfirmEmail { proof })).await.unwrap();
    let command = Command::new(Disable { user: users[0] }).actor(Actor::Admin("operator-7".to_owned()));
    let command = command.context(Context::new().request_id("r-1").client_ip("192.0.2.1".parse().unwrap()));
    soon(test.disable(command)).await.unwrap();
    soon(test.enable(Enable { user: users[0] })).await.unwrap();
    assert!(matches!(soon(test.delete(Delete::new(UserId::new()))).await, Err(Error::Refused(_))));
    soon(test.delete(Delete::new(users[1]))).await.unwrap();
    soon(test.drain()).await;
    users
}

async fn page(accounts: &Accounts, query: &AuditQuery) -> AuditPage {
    soon(accounts.audit(query.clone())).await.unwrap()
}

/// Every record that answers, read page by page.
async fn all(accounts: &Accounts, mut query: AuditQuery) -> Vec<AuditRecord> {
    let mut records = Vec::new();
    loop {
        let page = page(accounts, &query).await;
        assert!(page.records.len() <= query.limit);
        records.extend(page.records);
        let Some(next) = page.next else { return records };
        query = query.going_on(next);
    }
}

/// Pages of seven, which no count here is a multiple of for long.
fn query(newest_first: bool) -> AuditQuery {
    AuditQuery { newest_first, limit: 7, ..AuditQuery::default() }
}

fn seqs(records: &[AuditRecord]) -> Vec<u64> {
    records.iter().map(|record| record.seq).collect()
}

/// Whom a record is filed under.
fn subject(envelope: &Envelope) -> Option<UserId> {
    let in_lane = match envelope.lane {
        Lane::User(user) => Some(user),
        Lane::Flow(_) => None,
    };
    envelope.signal.user().or(in_lane)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signal_in_the_log_has_exactly_one_audit_record() {
    let test = TestAccounts::start().await;
    busy_day(&test).await;
    let (records, recorded) = (all(&test, query(false)).await, test.recorded());
    assert!(recorded.len() > 40);
    assert_eq!(seqs(&records), (1..=test.head()).collect::<Vec<_>>());
    for (record, told) in records.iter().zip(&recorded) {
        assert_eq!((Some(record.seq), record.id, record.at), (told.seq, told.id, told.at));
        assert_eq!((record.flow, record.cause, record.kind), (told.flow, told.cause, told.signal.kind()));
        assert_eq!((&record.actor, &record.sender, &record.context), (&told.actor, &told.sender, &told.context));
        assert_eq!((record.user, record.schema), (subject(told), told.schema));
        assert_eq!(record.signal, serde_json::to_value(&told.signal).unwrap());
    }
    let by_operator = records.iter().filter(|record| record.actor == Actor::Admin("operator-7".to_owned()));
    assert!(by_operator.clone().count() >= 2);
    assert!(by_operator.into_iter().all(|record| record.context.told_request_id() == Some("r-1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_found_by_user_kind_and_flow_in_pages_both_ways() {
    let test = TestAccounts::start().await;
    let users = busy_day(&test).await;
    let recorded = test.recorded();
    let kinds: BTreeSet<SignalKind> = recorded.iter().map(|told| told.signal.kind()).collect();
    let flows: BTreeSet<FlowId> = recorded.iter().map(|told| told.flow).collect();
    assert!(kinds.len() > 15 && flows.len() > 15);
    let mut queries = vec![query(false), AuditQuery { user: Some(UserId::new()), ..query(false) }];
    queries.extend(users.iter().map(|user| AuditQuery { user: Some(*user), ..query(false) }));
    queries.extend(kinds.iter().map(|kind| AuditQuery { kind: Some(*kind), ..query(false) }));
    queries.extend(flows.iter().map(|flow| AuditQuery { flow: Some(*flow), ..query(false) }));
    let logins = Some(SignalKind::UserAuthenticated);
    queries.push(AuditQuery { user: Some(users[0]), kind: logins, ..query(false) });
    queries.push(AuditQuery { user: Some(users[0]), after: Some(5), before: Some(30), ..query(false) });
    for asked in queries {
        let expected = recorded.iter().filter(|told| {
            asked.user.is_none_or(|user| subject(told) == Some(user))
                && asked.kind.is_none_or(|kind| told.signal.kind() == kind)
                && asked.flow.is_none_or(|flow| told.flow == flow)
                && asked.after.is_none_or(|after| told.seq > Some(after))
                && asked.before.is_none_or(|before| told.seq < Some(before))
        });
        let mut expected: Vec<_> = expected.map(|told| told.seq.unwrap()).collect();
        assert_eq!(seqs(&all(&test, asked.clone()).await), expected, "{asked:?}");
        expected.reverse();
        assert_eq!(seqs(&all(&test, AuditQuery { newest_first: true, ..asked.clone() }).await), expected, "{asked:?}");
    }
    let newest = page(&test, &AuditQuery::default()).await;
    assert_eq!(newest.records[0].seq, test.head(), "unless told otherwise, the newest comes first");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_survives_restarts_and_grows_without_repetition() {
    let mut test = TestAccounts::start().await;
    busy_day(&test).await;
    let before = all(&test, query(false)).await;
    for name in ["fay", "gil"] {
        test = soon(test.restart()).await.unwrap();
        register(&test, name).await;
    }
    soon(test.drain()).await;
    let after = all(&test, query(false)).await;
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(seqs(&after), (1..=test.head()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_a_deleted_user_stay_redacted() {
    let test = TestAccounts::start().await;
    let request = Register {
        username: Some("ada.lovelace".to_owned()),
        email: Some("ada.lovelace@example.com".to_owned()),
        ..Register::new(PASSWORD)
    };
    let ada = soon(test.register(request)).await.unwrap().user;
    soon(test.drain()).await;
    let of_ada = AuditQuery { user: Some(ada), ..query(false) };
    let before = all(&test, of_ada.clone()).await;
    soon(test.delete(Delete::new(ada))).await.unwrap();
    soon(test.drain()).await;
    let after = all(&test, of_ada).await;
    assert_eq!(after[..before.len()], before[..]);
    assert!(before.len() >= 7 && after.last().unwrap().kind == SignalKind::UserDeleted);
    let shown = after.iter().fold(String::new(), |mut shown, record| {
        write!(shown, "{record:?} {}", serde_json::to_string(record).unwrap()).unwrap();
        shown
    });
    assert!(!shown.contains("lovelace"), "{shown}");
    assert!(shown.contains("a***@e***.com"), "the redaction stays: {shown}");
    let unsealed = test.recorded().into_iter().filter(|told| told.signal.user() == Some(ada));
    let debug = unsealed.fold(String::new(), |debug, told| debug + &format!("{told:?}"));
    assert!(!debug.contains("lovelace"));
}

/// Keeps what is told under the target `audit`: field names and values, in order.
#[derive(Clone, Default)]
struct AuditLog(Arc<Mutex<Vec<BTreeMap<String, String>>>>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for AuditLog {
    fn on_event(&self, event: &tracing::Event<'_>, _context: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == "audit" {
            let mut fields = BTreeMap::new();
            event.record(&mut Fields(&mut fields));
            self.0.lock().unwrap().push(fields);
        }
    }
}

// One thread, so that what is told is told to the log of this test.
#[tokio::test]
async fn each_signal_is_told_once_under_the_tracing_target_audit() {
    use tracing_subscriber::layer::SubscriberExt;

    let log = AuditLog::default();
    // While there is only one, tracing asks the thread that comes by first whether anybody listens, and remembers the
    // answer for all threads: a test beside this one would silence it.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    let test = TestAccounts::start().await;
    busy_day(&test).await;
    let (told, recorded) = (log.0.lock().unwrap().clone(), test.recorded());
    assert_eq!(told.len(), recorded.len());
    for (fields, envelope) in told.iter().zip(&recorded) {
        assert_eq!(fields["seq"], envelope.seq.unwrap().to_string());
        assert_eq!(fields["kind"], format!("{:?}", envelope.signal.kind().as_str()));
        assert_eq!(fields["signal"], envelope.id.to_string());
        assert_eq!(fields["flow"], envelope.flow.to_string());
        assert_eq!(fields.get("user").cloned(), subject(envelope).map(|user| user.to_string()));
    }
    let shown = format!("{told:?}");
    for personal in ["dora", "192.0.2.1", "r-1"] {
        assert!(!shown.contains(personal), "{personal} in {shown}");
    }
}
