//! Auditing: every signal has one record, found by user, kind and flow, for as long as the store lives.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    Accounts, Actor, AuditFlaw, AuditPage, AuditQuery, AuditRange, AuditRecord, AuditVerifyError, Authenticate,
    Channel, Command, ConfirmEmail, Context, Delete, Disable, Enable, Envelope, Error, FlowId, Keyring, Lane,
    OperationError, Password, Proof, Register, RequestPasswordReset, SignalKind, Start, UserId, verify_audit,
};

use crate::listening::{PASSWORD, login, register, soon};

const HOUR: Duration = Duration::from_secs(3_600);

/// Some of everything: users, logins, refusals, deliveries, a deletion.
pub(crate) async fn busy_day(test: &TestAccounts) -> Vec<UserId> {
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

/// An export of the trail.
pub(crate) async fn exported(accounts: &Accounts, range: AuditRange) -> Vec<u8> {
    soon(accounts.export_audit(range, Vec::new())).await.unwrap().0
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
    let operator = Actor::Admin("operator-7".to_owned());
    queries.extend(
        [operator, Actor::Anonymous, Actor::System].map(|actor| AuditQuery { actor: Some(actor), ..query(false) }),
    );
    let times: Vec<_> = recorded.iter().map(|told| told.at).collect();
    for (since, until) in [(times[10], times[40]), (times[0], times[20]), (times[30], times[30].plus(HOUR))] {
        queries.push(AuditQuery { since: Some(since), until: Some(until), ..query(false) });
    }
    queries.push(AuditQuery { user: Some(users[0]), after: Some(5), before: Some(30), ..query(false) });
    for asked in queries {
        let expected = recorded.iter().filter(|told| {
            asked.user.is_none_or(|user| subject(told) == Some(user))
                && asked.kind.is_none_or(|kind| told.signal.kind() == kind)
                && asked.flow.is_none_or(|flow| told.flow == flow)
                && asked.actor.as_ref().is_none_or(|actor| told.actor == *actor)
                && asked.since.is_none_or(|since| told.at >= since)
                && asked.until.is_none_or(|until| told.at < until)
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

/// What identifies a person, in their account and in their requests.
const PERSONAL: [&str; 6] =
    ["lovelace", "lovelace@example.com", "7911123456", "203.0.113.77", "Difference Engine", "engine-room"];

#[tokio::test(flavor = "multi_thread")]
async fn of_a_deleted_user_nothing_personal_is_left_and_the_chain_still_verifies() {
    let test = TestAccounts::start().await;
    let context =
        Context::new().client_ip("203.0.113.77".parse().unwrap()).user_agent("Difference Engine/1 engine-room");
    let request = Register {
        username: Some("ada.lovelace".to_owned()),
        email: Some("ada.lovelace@example.com".to_owned()),
        phone: Some("+447911123456".to_owned()),
        ..Register::new(PASSWORD)
    };
    let ada = soon(test.register(Command::new(request).context(context.clone()))).await.unwrap().user;
    soon(test.drain()).await;
    let proof = Proof::from_link(test.messages().last_to("ada.lovelace@example.com").unwrap().link().unwrap()).unwrap();
    soon(test.confirm_email(Command::new(ConfirmEmail { proof }).context(context.clone()))).await.unwrap();
    let email = || "ada.lovelace@example.com".to_owned();
    for password in [PASSWORD, "a wrong password of some length"] {
        let request = Authenticate { identifier: email(), password: Password::new(password) };
        let _ = soon(test.authenticate(Command::new(request).context(context.clone()))).await;
    }
    let reset = RequestPasswordReset { identifier: email(), channel: Channel::Email };
    soon(test.request_password_reset(Command::new(reset).context(context.clone()))).await.unwrap();
    soon(test.drain()).await;
    let held = soon(test.audit_head()).await.unwrap();
    let of_ada = AuditQuery { user: Some(ada), ..query(false) };
    let readable = all(&test, of_ada.clone()).await;
    assert!(readable.len() > 15);
    for record in &readable {
        assert_eq!(record.context.told_client_ip(), context.told_client_ip(), "while she lives: {:?}", record.kind);
        assert_eq!(record.context.told_user_agent(), context.told_user_agent());
    }
    let nothing_personal =
        |text: &str| PERSONAL.iter().for_each(|word| assert!(!text.contains(word), "{word} in {text}"));
    nothing_personal(std::str::from_utf8(&exported(&test, AuditRange::default()).await).unwrap());

    soon(test.delete(Command::new(Delete::new(ada)).context(context))).await.unwrap();
    soon(test.drain()).await;
    let gone = all(&test, of_ada).await;
    assert_eq!(gone[..readable.len()], readable[..], "what is stored is as it was");
    assert!(gone.iter().all(|record| record.context.personal().is_none() && record.context.sealed().is_some()));
    let export = exported(&test, AuditRange::default()).await;
    nothing_personal(std::str::from_utf8(&export).unwrap());
    let verified = verify_audit(&*export, &test.audit_keys(), Some(&held)).unwrap();
    assert_eq!(verified.records, test.head());
    for told in test.recorded() {
        assert_eq!(told.context.personal(), None, "{:?}", told.signal.kind());
        nothing_personal(&serde_json::to_string(&told).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_is_whole_after_restarts_rewinding_and_new_keys() {
    let (old, new) = ([5; 32], [6; 32]);
    let first = Keyring::from_keys(vec![old]).unwrap();
    let mut config = crate::person::cheap();
    config.audit_checkpoint_every = 10;
    let mut test = TestAccounts::with(config, |builder| builder.keys(first.clone())).await;
    busy_day(&test).await;
    let held = soon(test.audit_head()).await.unwrap();
    let keys = test.audit_keys();
    let rotated = Keyring::from_keys(vec![new, old]).unwrap();
    test = soon(test.restart_with(|builder| builder.keys(rotated.clone()))).await.unwrap();
    register(&test, "fay").await;
    let moved = test.move_subscription("auditor", Start::Beginning, Actor::System);
    soon(moved).await.unwrap();
    soon(test.kill("auditor")).await;
    for name in ["gil", "hal", "ida"] {
        register(&test, name).await;
    }
    soon(test.drain()).await;
    assert_eq!(test.audit_keys()[1..], keys[..]);
    let verified = soon(test.verify_audit(Some(held.clone()))).await.unwrap();
    assert_eq!((verified.records + verified.missed, verified.missed), (test.head(), 1), "the move itself is a gap");
    let export = exported(&test, AuditRange::default()).await;
    assert_eq!(verify_audit(&*export, &test.audit_keys(), Some(&held)).unwrap().head.seq, test.head());
    let unknown = verify_audit(&*export, &keys, None).unwrap_err();
    assert!(matches!(unknown, AuditFlaw::UnknownKey { .. }), "{unknown:?}");

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.redb");
    soon(test.backup(&copy)).await.unwrap();
    let copied = Accounts::builder().file(&copy).keys(rotated).config(crate::person::cheap()).spawn().await.unwrap();
    assert_eq!(soon(copied.verify_audit(Some(held))).await.unwrap().store, verified.store);
    // A head of what the copy does not hold.
    register(&test, "jon").await;
    soon(test.drain()).await;
    let later = soon(test.audit_head()).await.unwrap();
    let truncated = soon(copied.verify_audit(Some(later))).await.unwrap_err();
    assert!(matches!(truncated, AuditVerifyError::Flaw(AuditFlaw::Truncated { .. } | AuditFlaw::Rewritten { .. })));
    assert!(soon(copied.shutdown()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_is_neither_rebuilt_nor_forgotten() {
    let test = TestAccounts::start().await;
    busy_day(&test).await;
    let before = exported(&test, AuditRange::default()).await;
    let kept = Some(OperationError::ProjectionKept);
    assert_eq!(soon(test.rebuild_projection("auditor", Actor::System)).await.err(), kept);
    soon(test.detach("auditor")).await.unwrap();
    assert_eq!(soon(test.forget_subscription("auditor")).await.err(), kept);
    assert_eq!(soon(test.rebuild_projection("auditor", Actor::System)).await.err(), kept);
    assert_eq!(exported(&test, AuditRange::default()).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_named_in_the_words_of_the_vocabulary() {
    let test = TestAccounts::start().await;
    let users = busy_day(&test).await;
    let events: BTreeSet<_> = all(&test, query(false)).await.into_iter().filter_map(|record| record.event).collect();
    let [ada, bob, ..] = users.as_slice() else { panic!("{users:?}") };
    for expected in [
        format!("authn_login_success:{ada}"),
        "authn_login_fail:unknown".to_owned(),
        format!("authn_login_lock:{ada},other"),
        format!("user_created:anonymous,{ada}"),
        format!("user_deleted:anonymous,{bob}"),
        format!("user_updated:anonymous,{ada},[status]"),
    ] {
        assert!(events.contains(&expected), "{expected} in {events:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_after_failures_and_a_token_used_before_are_told_as_such() {
    let test = TestAccounts::start().await;
    let ada = crate::person::ada(&test).await;
    let sent = test.messages().messages();
    let verifies = sent.iter().find(|message| message.kind == majordomo::MessageKind::VerifyEmail).unwrap();
    let link = verifies.link().unwrap().to_owned();
    for _ in 0..2 {
        crate::person::sign_in(&test, "ada", "not the right one").await.unwrap_err();
    }
    for _ in 0..2 {
        crate::person::sign_in(&test, "ada", crate::person::PASSWORD).await.unwrap();
    }
    let proof = crate::person::link_proof(&link);
    assert!(test.confirm_email(ConfirmEmail { proof }).await.unwrap().already);
    test.advance(Duration::from_secs(60));
    crate::person::request_reset(&test, crate::person::EMAIL, Channel::Email).await;
    let proof = crate::person::link_proof(&crate::person::link_to(&test, crate::person::EMAIL));
    crate::person::reset(&test, proof.clone(), crate::person::NEW_PASSWORD).await.unwrap();
    crate::person::reset(&test, proof, crate::person::NEW_PASSWORD).await.unwrap_err();
    test.drain().await;
    let events: Vec<_> = all(&test, query(false)).await.into_iter().filter_map(|record| record.event).collect();
    let count = |word: &str| events.iter().filter(|event| *event == word).count();
    for (word, times) in [
        (format!("authn_login_successafterfail:{ada},2"), 1),
        (format!("authn_login_success:{ada}"), 1),
        (format!("authn_token_reuse:{ada},verify_email"), 1),
        (format!("authn_token_reuse:{ada},reset_password"), 1),
    ] {
        assert_eq!(count(&word), times, "{word} in {events:#?}");
    }
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
    let events: BTreeSet<_> = told.iter().filter_map(|fields| fields.get("event")).collect();
    assert!(events.iter().any(|event| event.starts_with("\"authn_login_success:")), "{events:?}");
    let shown = format!("{told:?}");
    for personal in ["dora", "192.0.2.1", "r-1"] {
        assert!(!shown.contains(personal), "{personal} in {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, which prints figures and asserts none"]
#[allow(clippy::print_stdout, reason = "it prints figures")]
async fn what_a_record_costs_and_how_fast_they_are_made() {
    let test = TestAccounts::start().await;
    let ada = register(&test, "ada").await;
    soon(test.detach("auditor")).await.unwrap();
    let before = test.head();
    for _ in 0..500 {
        soon(test.disable(Disable { user: ada })).await.unwrap();
        soon(test.enable(Enable { user: ada })).await.unwrap();
    }
    let began = std::time::Instant::now();
    let test = test.restart().await.unwrap();
    test.drain().await;
    let (took, signals) = (began.elapsed(), test.head() - before);
    let (mut after, mut bytes, mut rows) = (None::<Vec<u8>>, 0, 0);
    loop {
        let page = test.projection_page("auditor", &[], after.as_deref(), 1_000).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        rows += page.len();
        bytes += page.iter().map(|(key, value)| key.len() + value.len() + "auditor".len() + 5).sum::<usize>();
    }
    let each = |count: usize| count as f64 / test.head() as f64;
    println!(
        "{signals} signals in {took:?}, the restart included; {:.0} bytes in {:.1} rows each",
        each(bytes),
        each(rows)
    );
    let began = std::time::Instant::now();
    let verified = test.verify_audit(None).await.unwrap();
    println!("{} records verified in {:?}", verified.records, began.elapsed());
}
