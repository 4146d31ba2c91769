//! The auditor, and queries over what it left.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};

use majordomo_model::{
    Actor, Context, DeletionCause, Failure, FlowId, Lane, Personal, SCHEMA_VERSION, Sender, SessionId, Signal,
    SignalId, SignalKind, Timestamp, TokenId, User, UserId,
};

use super::query::MAX_PAGE;
use super::*;
use crate::subscriber::{Claiming, Delivery, Desk, Unanswered};

struct EmptyDesk;

impl Desk for EmptyDesk {
    fn user(&self, _id: UserId) -> Result<Option<User>, Unanswered> {
        Ok(None)
    }

    fn delivery(&self, _token: TokenId) -> Result<Delivery, Unanswered> {
        Err(Unanswered::NotGranted)
    }

    fn projection(&self, _key: &[u8]) -> Result<(Option<Vec<u8>>, u64), Unanswered> {
        Ok((None, 0))
    }

    fn claim(&self, _signal: SignalId, _place: u64) -> Claiming<'_> {
        Box::pin(std::future::ready(Err(Unanswered::NotGranted)))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(0)
    }
}

/// The committed projection of an auditor, and every line that it told.
#[derive(Default)]
struct Trail {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trail {
    fn keep(&mut self, envelope: &Envelope) {
        let context = SubscriberContext::new(Arc::new(EmptyDesk), 1, false);
        let handling = async { Subscriber::handle(&Auditor::new(), envelope, &context).await };
        let log = CapturedLog(Arc::clone(&self.lines));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let Outcome::Done(effects) = tracing::subscriber::with_default(log, || runtime.block_on(handling)) else {
            panic!("an audit was put off");
        };
        for effect in effects {
            let Effect::Project { key, value } = effect else { panic!("{effect:?}") };
            assert!((1..=512).contains(&key.len()) && value.len() <= 64 * 1024);
            self.rows.insert(key, value);
        }
    }

    fn read(&self, query: &AuditQuery) -> AuditPage {
        let scan = |range: &TrailRange| -> Result<_, Infallible> {
            let rows = self.rows.range(range.from.clone()..range.until.clone());
            let rows =
                rows.filter(|(key, _)| key.starts_with(&range.prefix)).map(|(key, value)| (key.clone(), value.clone()));
            Ok(if range.newest_first {
                rows.rev().take(range.limit).collect::<Vec<_>>()
            } else {
                rows.take(range.limit).collect()
            })
        };
        query.read(scan).unwrap()
    }

    fn places(&self, query: &AuditQuery) -> Vec<u64> {
        self.read(query).records.iter().map(|record| record.seq).collect()
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

/// Writes every event of the target `audit` as one text.
struct CapturedLog(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for CapturedLog {
    fn enabled(&self, _metadata: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!(" {field}={value:?}"));
            }
        }
        if event.metadata().target() == "audit" {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

fn envelope(seq: u64, lane: Lane, signal: Signal) -> Envelope {
    Envelope {
        seq: Some(seq),
        id: SignalId::new(),
        flow: FlowId::new(),
        cause: None,
        lane,
        at: Timestamp::from_micros(1_000_000),
        sender: Sender::USER_MANAGER,
        actor: Actor::Anonymous,
        path: Vec::new(),
        context: Context::new(),
        schema: SCHEMA_VERSION,
        signal,
    }
}

fn login(seq: u64, user: UserId) -> Envelope {
    let session = Some(SessionId::new());
    let method = majordomo_model::LoginMethod::Password;
    envelope(seq, Lane::User(user), Signal::UserAuthenticated { user, method, session })
}

fn change(seq: u64, user: UserId) -> Envelope {
    envelope(seq, Lane::User(user), Signal::PasswordChanged { user, sessions_revoked: 0, undo: None })
}

fn everything() -> AuditQuery {
    AuditQuery { newest_first: false, limit: MAX_PAGE, ..AuditQuery::default() }
}

#[test]
fn a_record_holds_the_stored_form_and_reads_back() {
    let user = UserId::new();
    let mut address = Personal::known("a***@e***.com", "alice@example.com");
    address.set_sealed(vec![7; 40]);
    let signal = Signal::VerifyEmail { user, address, token: TokenId::new() };
    let mut envelope = envelope(258, Lane::User(user), signal.clone());
    envelope.cause = Some(FlowId::new());
    envelope.actor = Actor::Admin("root".into());
    envelope.context = Context::new().user_agent("agent").client_ip("192.0.2.1".parse().unwrap());
    let mut trail = Trail::default();
    trail.keep(&envelope);

    let record = trail.read(&everything()).records.remove(0);
    assert_eq!((record.seq, record.id, record.at), (258, envelope.id, envelope.at));
    assert_eq!((record.flow, record.cause, record.user), (envelope.flow, envelope.cause, Some(user)));
    assert_eq!((record.kind, record.schema), (SignalKind::VerifyEmail, SCHEMA_VERSION));
    assert_eq!((&record.actor, &record.sender), (&envelope.actor, &envelope.sender));
    assert_eq!(record.context, envelope.context);
    assert_eq!(serde_json::from_value::<Signal>(record.signal.clone()).unwrap(), signal);

    let kept: Vec<u8> = trail.rows.iter().flat_map(|(key, value)| [key.clone(), value.clone()].concat()).collect();
    let told = trail.lines().concat();
    for shown in [String::from_utf8_lossy(&kept).into_owned(), told.clone(), format!("{record:?}")] {
        assert!(!shown.contains("alice"), "{shown}");
    }
    assert!(!told.contains("192.0.2.1") && !told.contains("agent") && !told.contains("a***"), "{told}");
    assert_eq!(
        told,
        format!(
            "INFO message=signal seq=258 kind=\"verify_email\" signal={} flow={} user={user} actor=Admin(\"root\")",
            envelope.id, envelope.flow
        )
    );
}

#[test]
fn the_same_signal_again_is_the_same_record() {
    let (mut trail, envelope) = (Trail::default(), login(1, UserId::new()));
    trail.keep(&envelope);
    let once = trail.rows.clone();
    trail.keep(&envelope);
    assert_eq!((trail.rows.len(), &trail.rows), (4, &once));
}

#[test]
fn a_signal_without_a_place_leaves_nothing() {
    let mut live = login(1, UserId::new());
    live.seq = None;
    let mut trail = Trail::default();
    trail.keep(&live);
    assert!(trail.rows.is_empty());
}

#[test]
fn queries_find_what_they_ask_for_in_order() {
    let (alice, bob) = (UserId::new(), UserId::new());
    let mut trail = Trail::default();
    // Places on both sides of a byte's end: keys must sort as numbers do.
    let flow = FlowId::new();
    for seq in [1_u64, 2, 255, 256, 257, 65_536] {
        let user = if seq % 2 == 0 { alice } else { bob };
        let mut envelope = if seq > 255 { change(seq, user) } else { login(seq, user) };
        if seq > 256 {
            envelope.flow = flow;
        }
        trail.keep(&envelope);
    }
    let of = |change: &dyn Fn(&mut AuditQuery)| {
        let mut query = everything();
        change(&mut query);
        let forth = trail.places(&query);
        query.newest_first = true;
        let mut back = trail.places(&query);
        back.reverse();
        assert_eq!(forth, back);
        forth
    };
    assert_eq!(of(&|_| ()), [1, 2, 255, 256, 257, 65_536]);
    assert_eq!(of(&|query| query.user = Some(alice)), [2, 256, 65_536]);
    assert_eq!(of(&|query| query.user = Some(UserId::new())), [0_u64; 0]);
    assert_eq!(of(&|query| query.kind = Some(SignalKind::PasswordChanged)), [256, 257, 65_536]);
    assert_eq!(of(&|query| query.kind = Some(SignalKind::PasswordChangeFailed)), [0_u64; 0]);
    assert_eq!(of(&|query| query.flow = Some(flow)), [257, 65_536]);
    let (login, bobs) = (SignalKind::UserAuthenticated, Some(bob));
    assert_eq!(of(&|query| (query.user, query.kind) = (bobs, Some(login))), [1, 255]);
    assert_eq!(of(&|query| (query.user, query.flow) = (bobs, Some(flow))), [257]);
    assert_eq!(of(&|query| (query.after, query.before) = (Some(2), Some(257))), [255, 256]);
    assert_eq!(of(&|query| (query.user, query.after) = (Some(alice), Some(2))), [256, 65_536]);
    assert_eq!(of(&|query| (query.after, query.before) = (Some(257), Some(2))), [0_u64; 0]);
    assert_eq!(of(&|query| query.after = Some(u64::MAX)), [0_u64; 0]);
}

#[test]
fn pages_join_up_without_gap_or_repetition() {
    let (alice, bob) = (UserId::new(), UserId::new());
    let mut trail = Trail::default();
    for seq in 1..=700_u64 {
        let user = if seq % 7 == 0 { alice } else { bob };
        trail.keep(&if seq % 2 == 0 { change(seq, user) } else { login(seq, user) });
    }
    for newest_first in [false, true] {
        for (user, expected) in [(None, 350), (Some(alice), 50), (Some(bob), 300)] {
            let kind = Some(SignalKind::UserAuthenticated);
            let mut query = AuditQuery { user, kind, newest_first, limit: 9, ..AuditQuery::default() };
            let mut found = Vec::new();
            loop {
                let page = trail.read(&query);
                assert!(page.records.len() <= 9);
                found.extend(page.records.iter().map(|record| record.seq));
                let Some(next) = page.next else { break };
                query = query.going_on(next);
            }
            assert_eq!((found.len(), found.iter().collect::<BTreeSet<_>>().len()), (expected, expected));
            assert!(found.is_sorted_by(|one, other| (one < other) != newest_first));
        }
    }
}

#[test]
fn naughty_texts_make_parseable_records_and_one_line_each() {
    let user = UserId::new();
    let mut trail = Trail::default();
    let texts = naughty_strings::BLNS;
    for (seq, text) in (1..).zip(texts) {
        let failure = Signal::SubscriberRestarted {
            subscriber: (*text).to_owned(),
            signal: SignalId::new(),
            failure: (*text).to_owned(),
        };
        let mut envelope = envelope(seq, Lane::User(user), failure);
        envelope.context = Context::new().user_agent(text).request_id(text);
        envelope.actor = Actor::Admin((*text).to_owned());
        trail.keep(&envelope);
    }
    let records = trail.read(&everything()).records;
    assert_eq!(records.len(), texts.len());
    for (record, text) in records.iter().zip(texts) {
        assert_eq!(record.actor, Actor::Admin((*text).to_owned()));
        assert_eq!(record.signal["data"]["failure"], *text);
        assert_eq!(record.context.told_user_agent(), Context::new().user_agent(text).told_user_agent());
    }
    let lines = trail.lines();
    assert_eq!(lines.len(), texts.len());
    assert!(lines.iter().all(|line| !line.contains(char::is_control)));
}

#[test]
fn a_signal_too_big_for_a_record_is_kept_without_its_data() {
    let user = UserId::new();
    let groups = vec!["g".repeat(64); 2_000];
    let mut envelope = envelope(5, Lane::User(user), Signal::GroupsChanged { user, version: 2, groups });
    envelope.actor = Actor::Admin("é".repeat(40_000));
    let mut trail = Trail::default();
    trail.keep(&envelope);
    let record = trail.read(&everything()).records.remove(0);
    assert_eq!((record.seq, record.user, record.kind), (5, Some(user), SignalKind::GroupsChanged));
    assert_eq!(record.signal, serde_json::json!({ "type": "groups_changed" }));
    assert_eq!(record.actor, Actor::Admin("é".repeat(128)));
}

#[test]
fn what_speaks_of_nobody_is_found_by_its_lane_or_by_kind() {
    let user = UserId::new();
    let mut trail = Trail::default();
    trail.keep(&envelope(1, Lane::User(user), Signal::UserLogoutStarted { session: None }));
    let flow = FlowId::new();
    let identifier = Personal::unmatched("***", [1; 32]);
    let failed = Signal::UserAuthenticationFailed { identifier, user: None, reason: Failure::UserNotFound };
    trail.keep(&envelope(2, Lane::Flow(flow), failed));
    assert_eq!(trail.places(&AuditQuery { user: Some(user), ..everything() }), [1]);
    let kind = Some(SignalKind::UserAuthenticationFailed);
    assert_eq!(trail.places(&AuditQuery { kind, ..everything() }), [2]);
    assert!(trail.lines()[1].contains("user_authentication_failed") && !trail.lines()[1].contains("user="));
}

#[test]
fn stored_bytes_of_today_are_read_for_ever() {
    let golden = concat!(
        "\u{1}",
        r#"{"seq":7,"at":1000000,"id":"01900000-0000-7000-8000-000000000001","flow":"01900000-0000-7000-8000-000000000002","#,
        r#""cause":"01900000-0000-7000-8000-000000000003","kind":"user_deleted","user":"01900000-0000-7000-8000-000000000004","#,
        r#""actor":{"admin":"root"},"sender":"user_manager","context":{"client_ip":"192.0.2.1"},"schema":1,"#,
        r#""signal":{"data":{"cause":"requested","sessions_revoked":2,"user":"01900000-0000-7000-8000-000000000004","#,
        r#""username":{"redacted":"a***"}},"type":"user_deleted"}}"#,
    );
    let id = |last: u8| {
        let mut bytes = [0; 16];
        (bytes[0], bytes[1], bytes[6], bytes[8], bytes[15]) = (0x01, 0x90, 0x70, 0x80, last);
        bytes
    };
    let user = UserId::from_bytes(id(4));
    let username = Some(Personal::redacted_only("a***"));
    let signal = Signal::UserDeleted { user, username, sessions_revoked: 2, cause: DeletionCause::Requested };
    let envelope = Envelope {
        id: SignalId::from_bytes(id(1)),
        flow: FlowId::from_bytes(id(2)),
        cause: Some(FlowId::from_bytes(id(3))),
        actor: Actor::Admin("root".into()),
        path: Vec::new(),
        context: Context::new().client_ip("192.0.2.1".parse().unwrap()),
        ..envelope(7, Lane::User(user), signal)
    };
    let record = AuditRecord::of(&envelope).unwrap();
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(&bytes[1..]).unwrap();
    let encoded = record.encode().unwrap();
    assert_eq!((encoded[0], json(&encoded)), (1, json(golden.as_bytes())));
    assert_eq!(AuditRecord::decode(golden.as_bytes()), Ok(record));
    assert_eq!(AuditRecord::decode(b""), Err(AuditFault::UnknownFormat));
    assert_eq!(AuditRecord::decode(b"\x02{}"), Err(AuditFault::UnknownFormat));
    assert_eq!(AuditRecord::decode(b"\x01{}"), Err(AuditFault::Malformed));
    let broken = |_: &TrailRange| Ok::<_, Infallible>(vec![(record::record_key(7), b"\x02".to_vec())]);
    let expected = AuditReadError::Record { seq: 7, fault: AuditFault::UnknownFormat };
    assert_eq!(AuditQuery::default().read(broken), Err(expected));
}
