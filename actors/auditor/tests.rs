//! The auditor, and queries over what it left.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use majordomo_model::{
    Actor, Context, DeletionCause, Failure, FlowId, Lane, Personal, SCHEMA_VERSION, Sender, SessionId, Signal,
    SignalId, SignalKind, StoreId, Timestamp, TokenId, User, UserId,
};

use super::chain::{Body, StoredLink, genesis, link_hash};
use super::query::MAX_PAGE;
use super::record::Entry;
use super::*;
use crate::subscriber::{Claiming, Delivery, Desk, Effect, Unanswered};

const STORE: StoreId = StoreId::from_bytes([9; 16]);
const KEY: [u8; 8] = [3; 8];

pub(super) fn signer(seed: u8) -> Arc<AuditSigner> {
    Arc::new(AuditSigner::new([seed; 8], &[seed; 32]))
}

/// A key and its value.
type Row = (Vec<u8>, Vec<u8>);

/// Answers from a committed projection.
#[derive(Clone, Default)]
struct Committed(Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>);

impl Desk for Committed {
    fn user(&self, _id: UserId) -> Result<Option<User>, Unanswered> {
        Ok(None)
    }

    fn delivery(&self, _token: TokenId) -> Result<Delivery, Unanswered> {
        Err(Unanswered::NotGranted)
    }

    fn projection(&self, key: &[u8]) -> Result<(Option<Vec<u8>>, u64), Unanswered> {
        Ok((self.0.lock().unwrap().get(key).cloned(), 0))
    }

    fn store(&self) -> Result<StoreId, Unanswered> {
        Ok(STORE)
    }

    fn claim(&self, _signal: SignalId, _place: u64) -> Claiming<'_> {
        Box::pin(std::future::ready(Err(Unanswered::NotGranted)))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(7)
    }
}

/// The committed projection of an auditor, and every line that it told.
struct Trail {
    rows: Committed,
    lines: Arc<Mutex<Vec<String>>>,
    auditor: Auditor,
}

impl Default for Trail {
    fn default() -> Self {
        Self { rows: Committed::default(), lines: Arc::default(), auditor: Auditor::new(signer(KEY[0])) }
    }
}

impl Trail {
    fn keep(&mut self, envelope: &Envelope) {
        let context = self.context();
        let auditor = self.auditor.clone();
        self.commit(async { Subscriber::handle(&auditor, envelope, &context).await });
    }

    fn miss(&mut self, from: u64, to: u64) {
        let context = self.context();
        let auditor = self.auditor.clone();
        self.commit(async { Subscriber::missed(&auditor, Gap { from, to }, &context).await });
    }

    fn context(&self) -> SubscriberContext {
        SubscriberContext::new(Arc::new(self.rows.clone()), 1, false)
    }

    fn commit(&mut self, handling: impl Future<Output = Outcome>) {
        let log = CapturedLog(Arc::clone(&self.lines));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let Outcome::Done(effects) = tracing::subscriber::with_default(log, || runtime.block_on(handling)) else {
            panic!("an audit was put off");
        };
        for effect in effects {
            let Effect::Project { key, value } = effect else { panic!("{effect:?}") };
            assert!((1..=512).contains(&key.len()) && value.len() <= 64 * 1024);
            self.rows().insert(key, value);
        }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.rows.0.lock().unwrap()
    }

    fn scan(&self, range: &TrailRange) -> Result<Vec<Row>, Infallible> {
        let rows = self.rows();
        let rows = rows.range(range.from.clone()..range.until.clone());
        let rows =
            rows.filter(|(key, _)| key.starts_with(&range.prefix)).map(|(key, value)| (key.clone(), value.clone()));
        Ok(if range.newest_first {
            rows.rev().take(range.limit).collect::<Vec<_>>()
        } else {
            rows.take(range.limit).collect()
        })
    }

    fn export(&self, range: AuditRange) -> Vec<u8> {
        let end = TrailEnd { store: STORE, now: Timestamp::from_micros(8) };
        let export = AuditExport::begin(&end, Arc::clone(&self.auditor.signer), range, |range| self.scan(range));
        let mut lines = Vec::new();
        let written = export.unwrap().run(
            |range| self.scan(range),
            |line| {
                lines.extend_from_slice(line);
                lines.push(b'\n');
                Ok::<_, Infallible>(())
            },
        );
        written.unwrap().unwrap();
        lines
    }

    fn verify(&self) -> Result<VerifiedAudit, AuditFlaw> {
        verify_audit(&*self.export(AuditRange::default()), &self.auditor.signer.public_keys(), None)
    }

    /// How the links follow on one another.
    fn links(&self) -> Vec<Body> {
        let links = self
            .rows()
            .iter()
            .filter(|(key, _)| key.starts_with(b"s"))
            .map(|(_, value)| value.clone())
            .collect::<Vec<_>>();
        links.iter().filter_map(|value| StoredLink::decode(value).unwrap().map(|link| link.body().unwrap())).collect()
    }

    fn read(&self, query: &AuditQuery) -> AuditPage {
        query.read(|range| self.scan(range)).unwrap()
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
    envelope(seq, Lane::User(user), Signal::UserAuthenticated { user, method, session, failures: None })
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

    let kept: Vec<u8> = trail.rows().iter().flat_map(|(key, value)| [key.clone(), value.clone()].concat()).collect();
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
    let once = trail.rows().clone();
    trail.keep(&envelope);
    // The record, its four ways to be found, the time, the head.
    assert_eq!((once.len(), trail.rows().clone()), (7, once));
    assert_eq!(trail.lines().len(), 1);
}

#[test]
fn a_signal_without_a_place_leaves_nothing() {
    let mut live = login(1, UserId::new());
    live.seq = None;
    let mut trail = Trail::default();
    trail.keep(&live);
    assert!(trail.rows().is_empty());
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
    let read = |bytes: &[u8]| match Entry::decode(bytes)? {
        Entry::Record(record) => Ok(*record),
        other => panic!("{other:?}"),
    };
    // As builds before the chain wrote it.
    let earlier = AuditRecord { event: None, ..record.clone() };
    assert_eq!(read(golden.as_bytes()), Ok(earlier));
    let body = record.clone().bounded_body().unwrap();
    let event = r#""event":"user_deleted:admin,01900000-0000-7000-8000-000000000004","user""#;
    let expected = format!(r#"{{"record":{}}}"#, golden[1..].replacen(r#""user""#, event, 1));
    assert_eq!(String::from_utf8(body.clone()).unwrap(), expected);
    let hash = link_hash(genesis(STORE), 1, &body);
    // Computed apart from this code, from the words of docs/AUDIT.md.
    assert_eq!(genesis(STORE).to_string(), "a8146aa630bfba3782dc3ef2a30e1f493eedd115a8dcc1dc9ad0d4f200afcd58");
    assert_eq!(hash.to_string(), "8c879a0206c012e1a94c99bb0b15b9bb074346aa285c32014fe4bb49ae223133");
    let stored = [&[2], &1_u64.to_be_bytes()[..], hash.as_bytes(), &body].concat();
    assert_eq!(read(&stored), Ok(record));
    for unreadable in [&b""[..], b"\x03{}"] {
        assert_eq!(read(unreadable), Err(AuditFault::UnknownFormat));
    }
    for malformed in [&b"\x01{}"[..], b"\x02", &stored[..41], &stored[..stored.len() - 1]] {
        assert_eq!(read(malformed), Err(AuditFault::Malformed));
    }
    let broken = |range: &TrailRange| {
        Ok::<_, Infallible>(if range.prefix == b"s" { vec![(record_key(7), b"\x03".to_vec())] } else { vec![] })
    };
    let expected = AuditReadError::Record { seq: 7, fault: AuditFault::UnknownFormat };
    assert_eq!(AuditQuery::default().read(broken), Err(expected));
}

#[test]
fn a_rewound_auditor_adds_nothing_and_one_that_is_moved_on_tells_the_hole() {
    let mut trail = Trail::default();
    let signals: Vec<_> = (1..=3).chain([7, 9]).map(|seq| login(seq, UserId::new())).collect();
    signals.iter().for_each(|signal| trail.keep(signal));
    let once = trail.rows().clone();
    signals.iter().rev().for_each(|signal| trail.keep(signal));
    trail.miss(1, 9);
    assert_eq!(*trail.rows(), once);
    trail.miss(8, 12);
    trail.miss(14, 20);
    let gaps = |trail: &Trail| {
        let gaps = trail.links().into_iter().filter_map(|body| match body {
            Body::Gap(AuditGap { from, to, cause, .. }) => Some((from, to, cause)),
            _ => None,
        });
        gaps.collect::<Vec<_>>()
    };
    use GapCause::{NotHanded, Pruned};
    let expected = [(4, 6, NotHanded), (8, 8, NotHanded), (10, 12, Pruned), (13, 13, NotHanded), (14, 20, Pruned)];
    assert_eq!(gaps(&trail), expected);
    trail.keep(&login(21, UserId::new()));
    let verified = trail.verify().unwrap();
    assert_eq!((verified.records, verified.missed, verified.head.seq, verified.head.number), (6, 15, 21, 11));
    let page = trail.read(&everything());
    assert_eq!(page.gaps.iter().map(|gap| gap.to).collect::<Vec<_>>(), [6, 8, 12, 13, 20]);
}

#[test]
fn the_chain_begins_behind_what_an_earlier_build_recorded_and_says_so() {
    let mut trail = Trail::default();
    let user = UserId::new();
    for seq in 1..=3 {
        let record = AuditRecord { event: None, ..AuditRecord::of(&login(seq, user)).unwrap() };
        let bytes = [vec![1], serde_json::to_vec(&record).unwrap()].concat();
        trail.rows().insert(record_key(seq), bytes);
    }
    trail.keep(&login(4, user));
    let gap =
        |body: &Body| matches!(body, Body::Gap(gap) if (gap.from, gap.to, gap.cause) == (1, 3, GapCause::Unchained));
    assert!(trail.links().first().is_some_and(gap));
    assert_eq!(trail.places(&everything()), [1, 2, 3, 4]);
    let verified = trail.verify().unwrap();
    assert_eq!((verified.records, verified.missed), (1, 3));
}

#[test]
fn the_trail_is_signed_after_so_many_links_and_once_an_hour() {
    let mut trail = Trail::default();
    trail.auditor = trail.auditor.clone().checkpoint_every(5);
    let hour = 3_600_000_000;
    let mut at = 0;
    for seq in 1..=30 {
        at += if seq > 20 { hour / 2 } else { 1 };
        trail.keep(&Envelope { at: Timestamp::from_micros(at), ..login(seq, UserId::new()) });
    }
    let signed: Vec<_> = trail
        .links()
        .iter()
        .filter_map(|body| match body {
            Body::Checkpoint(head) => Some(head.seq),
            _ => None,
        })
        .collect();
    assert_eq!(signed, [5, 10, 15, 20, 22, 24, 26, 28, 30]);
    assert_eq!(trail.verify().unwrap().records, 30);
}

#[test]
fn records_are_found_by_time_however_late_they_came() {
    let mut trail = Trail::default();
    let second = 1_000_000;
    // Decided upon in another order than they happened: every seventh came 40 seconds late.
    let time = |seq: i64| Timestamp::from_micros((seq * 3 - if seq % 7 == 0 { 40 } else { 0 }) * second);
    for seq in 1..=200 {
        trail.keep(&Envelope { at: time(seq), ..login(seq.cast_unsigned(), UserId::new()) });
    }
    for (since, until) in
        [(None, Some(90)), (Some(90), None), (Some(300), Some(330)), (Some(-50), Some(4)), (Some(9_000), None)]
    {
        let (since, until) = (
            since.map(|s: i64| Timestamp::from_micros(s * second)),
            until.map(|s: i64| Timestamp::from_micros(s * second)),
        );
        let is_within = |at: Timestamp| since.is_none_or(|since| at >= since) && until.is_none_or(|until| at < until);
        let expected: Vec<_> = (1..=200).filter(|seq| is_within(time(*seq))).map(i64::cast_unsigned).collect();
        for newest_first in [false, true] {
            let mut query = AuditQuery { since, until, newest_first, limit: 9, ..AuditQuery::default() };
            let mut found = Vec::new();
            loop {
                let page = trail.read(&query);
                found.extend(page.records.iter().map(|record| record.seq));
                let Some(next) = page.next else { break };
                query = query.going_on(next);
            }
            found.sort_unstable();
            assert_eq!(found, expected, "{since:?} {until:?}");
        }
    }
    let mut looked_at = 0;
    let (since, until) = (Some(Timestamp::from_micros(300 * second)), Some(Timestamp::from_micros(330 * second)));
    let query = AuditQuery { since, until, limit: MAX_PAGE, ..AuditQuery::default() };
    let page = query.read(|range| {
        let rows = trail.scan(range);
        looked_at += rows.as_ref().map_or(0, Vec::len);
        rows
    });
    assert!(page.unwrap().records.len() >= 9 && looked_at < 40, "{looked_at}");
}

#[test]
fn a_part_of_the_trail_is_verified_by_itself_and_against_a_held_head() {
    let mut trail = Trail::default();
    trail.auditor = trail.auditor.clone().checkpoint_every(8);
    let end = TrailEnd { store: STORE, now: Timestamp::from_micros(8) };
    let mut heads = Vec::new();
    for seq in 1..=40 {
        trail.keep(&login(seq, UserId::new()));
        heads.push(end.held(&trail.auditor.signer, |range| trail.scan(range)).unwrap());
    }
    let keys = trail.auditor.signer.public_keys();
    let (middle, later) = (&heads[19], &heads[38]);
    let part = trail.export(AuditRange { from: Some(10), to: Some(30) });
    let verified = verify_audit(&*part, &keys, Some(middle)).unwrap();
    assert_eq!((verified.records, verified.after, verified.head.seq), (21, 10, 30));
    let flaw = |export: &[u8], keys: &[AuditPublicKey], held| verify_audit(export, keys, Some(held)).unwrap_err();
    assert!(matches!(flaw(&part, &keys, later), AuditFlaw::Truncated { .. }));
    assert!(matches!(flaw(&part, &keys, &heads[2]), AuditFlaw::HeldBefore { number: 3 }));
    let forged = AuditHead { at: Timestamp::from_micros(9), ..middle.clone() };
    assert!(matches!(flaw(&part, &keys, &forged), AuditFlaw::Forged { .. }));
    assert!(matches!(flaw(&part, &signer(4).public_keys(), middle), AuditFlaw::UnknownKey { .. }));
    let foreign = end.held(&signer(KEY[0]), |_| Ok::<_, Infallible>(Vec::new())).unwrap();
    assert_eq!(verify_audit(&*trail.export(AuditRange::default()), &keys, Some(&foreign)).unwrap().records, 40);
    // The same keys, another history.
    let mut other = Trail::default();
    (1..=40).for_each(|seq| other.keep(&login(seq, UserId::new())));
    assert!(matches!(flaw(&other.export(AuditRange::default()), &keys, middle), AuditFlaw::Rewritten { .. }));
    let empty = Trail::default();
    assert_eq!(empty.verify().unwrap().records, 0);
}

#[test]
fn a_trail_that_lost_its_end_is_not_signed_as_whole() {
    let mut trail = Trail::default();
    (1..=9).for_each(|seq| trail.keep(&login(seq, UserId::new())));
    trail.rows().remove(&record_key(9));
    assert_eq!(trail.verify(), Err(AuditFlaw::CutOff { number: 8 }));
}

#[test]
fn a_stretch_without_a_signature_is_a_flaw() {
    let mut trail = Trail::default();
    (1..=UNSIGNED_LIMIT).for_each(|place| trail.miss(place, place));
    assert_eq!(trail.verify().unwrap().missed, UNSIGNED_LIMIT);
    let number = UNSIGNED_LIMIT + 1;
    trail.miss(number, number);
    assert_eq!(trail.verify(), Err(AuditFlaw::Unsigned { number }));
}

#[test]
fn keys_are_rotated_and_tell_nothing_of_themselves() {
    let rotated = Arc::new(AuditSigner::new([4; 8], &[4; 32]).earlier(KEY, &[KEY[0]; 32]));
    let mut trail = Trail::default();
    trail.auditor = trail.auditor.clone().checkpoint_every(2);
    (1..=4).for_each(|seq| trail.keep(&login(seq, UserId::new())));
    trail.auditor = Auditor::new(Arc::clone(&rotated)).checkpoint_every(2);
    (5..=9).for_each(|seq| trail.keep(&login(seq, UserId::new())));
    assert_eq!(trail.verify().unwrap().records, 9);
    let export = trail.export(AuditRange::default());
    let only_new = &rotated.public_keys()[..1];
    assert!(matches!(verify_audit(&*export, only_new, None), Err(AuditFlaw::UnknownKey { number: 2, .. })));
    assert!(!format!("{:?}", trail.auditor).contains("4, 4"));
    // RFC 8032, section 7.1, test 1: the seed and its public key.
    let seed: Hex<32> = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60".parse().unwrap();
    let public = AuditSigner::new(KEY, seed.as_bytes()).public_keys()[0].public.to_string();
    assert_eq!(public, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
}

#[test]
fn no_line_is_too_long_or_too_strange_for_the_verifier() {
    let long = vec![b'1'; LINE_LIMIT + 1];
    assert_eq!(verify_audit(&*long, &[], None), Err(AuditFlaw::LineTooLong { line: 1 }));
    assert_eq!(verify_audit(&b""[..], &[], None), Err(AuditFlaw::CutOff { number: 0 }));
    for strange in ["\n", "{}\n", "{\"number\":1\n", "\u{0}\n", "[[[[\n", "no line feed"] {
        assert_eq!(verify_audit(strange.as_bytes(), &[], None), Err(AuditFlaw::Malformed { line: 1 }), "{strange:?}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(16))]
    #[test]
    fn any_changed_bit_is_noticed(places in proptest::collection::vec(proptest::prelude::any::<proptest::sample::Index>(), 64), bit in 0..8_u8) {
        let mut trail = Trail::default();
        trail.auditor = trail.auditor.clone().checkpoint_every(4);
        (1..=6).chain([9]).for_each(|seq| trail.keep(&login(seq, UserId::new())));
        let (export, keys) = (trail.export(AuditRange::default()), trail.auditor.signer.public_keys());
        for place in places {
            let mut changed = export.clone();
            changed[place.index(export.len())] ^= 1 << bit;
            proptest::prop_assert!(verify_audit(&*changed, &keys, None).is_err());
        }
    }
}
