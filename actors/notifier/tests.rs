//! The notifier at a desk of the test's own.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Mutex;

use majordomo_model::{
    Actor, ContactId, Context, Email, FlowId, Lane, OneTimeCode, OneTimeToken, Personal, Phone, Profile,
    SCHEMA_VERSION, Sender, SignalId, Timestamp, TokenPurpose, UserContact, UserStatus,
};

use super::*;
use crate::subscriber::{Claim, Unanswered};
use crate::subscriber::{Claiming, Desk, DueMessage};

const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
const PATH: &str = "/accounts/x/y/mdt_CANARYLINK/";
const LINK: &str = "https://example.com/app/accounts/x/y/mdt_CANARYLINK/";
const CODE: &str = "31415926";

#[derive(Clone, Copy, Debug, PartialEq)]
enum TokenState {
    Live,
    Superseded,
    Used,
    Expired,
    Ended,
    Unanswered(Unanswered),
}

/// A desk that answers what a test tells it to.
struct FakeDesk {
    user: Option<User>,
    storage_is_out: bool,
    token: TokenState,
    address: Contact,
    now: Timestamp,
    projection: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    claims: Mutex<BTreeMap<SignalId, Claim>>,
}

impl Desk for FakeDesk {
    fn user(&self, id: UserId) -> Result<Option<User>, Unanswered> {
        if self.storage_is_out {
            Err(Unanswered::StorageUnavailable)
        } else {
            Ok(self.user.clone().filter(|user| user.id == id))
        }
    }

    fn delivery(&self, _token: TokenId) -> Result<Delivery, Unanswered> {
        Ok(match self.token {
            TokenState::Live => Delivery::Live(DueMessage {
                user: self.user.as_ref().map_or_else(UserId::new, |user| user.id),
                purpose: TokenPurpose::VerifyEmail,
                address: self.address.clone(),
                path: Some(OneTimeToken::new(PATH)),
                code: Some(OneTimeCode::new(CODE)),
                expires_at: NOW.plus(Duration::from_secs(3_600)),
                code_expires_at: NOW.plus(Duration::from_secs(600)),
                delivery: FlowId::new(),
            }),
            TokenState::Superseded => Delivery::Superseded,
            TokenState::Used => Delivery::Used,
            TokenState::Expired => Delivery::Expired,
            TokenState::Ended => Delivery::Ended,
            TokenState::Unanswered(unanswered) => return Err(unanswered),
        })
    }

    fn projection(&self, key: &[u8]) -> Result<(Option<Vec<u8>>, u64), Unanswered> {
        Ok((self.projection.lock().unwrap().get(key).cloned(), 0))
    }

    fn store(&self) -> Result<majordomo_model::StoreId, Unanswered> {
        Ok(majordomo_model::StoreId::from_bytes([9; 16]))
    }

    fn claim(&self, signal: SignalId, _place: u64) -> Claiming<'_> {
        let claim = self.claims.lock().unwrap().entry(signal).or_insert(Claim::Yours).to_owned();
        Box::pin(std::future::ready(Ok(claim)))
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

fn email(text: &str) -> Contact {
    Email::parse(text).unwrap().into()
}

fn phone(text: &str) -> Contact {
    Phone::parse(text).unwrap().into()
}

fn proven(address: Contact) -> UserContact {
    UserContact { id: ContactId::new(), address, proven_at: Some(NOW), primary: true, replaces: None }
}

fn user(contacts: Vec<UserContact>) -> User {
    User {
        id: UserId::new(),
        version: 1,
        created_at: NOW,
        status: UserStatus::Active,
        username: None,
        contacts,
        profile: Profile { display_name: Some("http://evil.example <b>".into()), ..Profile::default() },
        groups: std::collections::BTreeSet::new(),
        last_login_at: None,
    }
}

/// A notifier, what it sent, and the desk that its next signal finds.
struct Stage {
    notifier: Notifier,
    outbox: CapturedOutbox,
    desk: FakeDesk,
    attempt: u32,
    rebuilding: bool,
}

impl Stage {
    fn new() -> Self {
        let outbox = CapturedOutbox::new();
        let settings = NotifierSettings::new("Example", "https://example.com/app/");
        let notifier = Notifier::new(settings, Templates::embedded())
            .unwrap()
            .with_transport(outbox.transport(Channel::Email))
            .with_transport(outbox.transport(Channel::Phone));
        let desk = FakeDesk {
            user: Some(user(vec![proven(phone("+447911123412")), proven(email("Alice@Example.org"))])),
            storage_is_out: false,
            token: TokenState::Live,
            address: email("Alice@Example.org"),
            now: NOW,
            projection: Mutex::default(),
            claims: Mutex::default(),
        };
        Self { notifier, outbox, desk, attempt: 1, rebuilding: false }
    }

    fn user(&self) -> UserId {
        self.desk.user.as_ref().unwrap().id
    }

    /// Handles a signal and commits the projections that it left.
    async fn handle(&mut self, envelope: &Envelope) -> Outcome {
        let desk = std::mem::replace(&mut self.desk, Self::new_desk_place());
        let desk = Arc::new(desk);
        let context = SubscriberContext::new(Arc::clone(&desk) as Arc<dyn Desk>, self.attempt, self.rebuilding);
        let outcome = Subscriber::handle(&self.notifier, envelope, &context).await;
        drop(context);
        self.desk = Arc::into_inner(desk).unwrap();
        if let Outcome::Done(effects) = &outcome {
            for effect in effects {
                match effect {
                    Effect::Project { key, value } => {
                        self.desk.projection.lock().unwrap().insert(key.clone(), value.clone());
                    }
                    Effect::Forget { key } => drop(self.desk.projection.lock().unwrap().remove(key)),
                    Effect::Settle => {
                        self.desk.claims.lock().unwrap().insert(envelope.id, Claim::Settled);
                    }
                    _ => {}
                }
            }
        }
        outcome
    }

    /// Handles a signal, and tells until when it is put off.
    async fn put_off(&mut self, envelope: &Envelope) -> Timestamp {
        match self.handle(envelope).await {
            Outcome::Defer { until } => until,
            other => panic!("not put off: {other:?}"),
        }
    }

    fn new_desk_place() -> FakeDesk {
        FakeDesk {
            user: None,
            storage_is_out: true,
            token: TokenState::Ended,
            address: email("nobody@example.org"),
            now: NOW,
            projection: Mutex::default(),
            claims: Mutex::default(),
        }
    }

    fn taken(&self, channel: Channel, address: &str) -> Envelope {
        envelope(Signal::AddressTaken { owner: self.user(), address: Personal::known("a***", address), channel })
    }
}

fn envelope(signal: Signal) -> Envelope {
    Envelope {
        seq: Some(1),
        id: SignalId::new(),
        flow: FlowId::new(),
        cause: None,
        lane: Lane::Flow(FlowId::new()),
        at: NOW,
        sender: Sender::USER_MANAGER,
        actor: Actor::Anonymous,
        path: Vec::new(),
        context: Context::new(),
        schema: SCHEMA_VERSION,
        signal,
    }
}

fn token_signals(user: UserId, token: TokenId) -> [(MessageKind, Channel, Signal); 4] {
    let (address, phone) = (Personal::redacted_only("a***"), Personal::redacted_only("+44***"));
    [
        (MessageKind::VerifyEmail, Channel::Email, Signal::VerifyEmail { user, address: address.clone(), token }),
        (MessageKind::VerifyPhone, Channel::Phone, Signal::VerifyPhone { user, phone: phone.clone(), token }),
        (MessageKind::ResetPasswordEmail, Channel::Email, Signal::ResetPasswordEmail { user, address, token }),
        (MessageKind::ResetPasswordPhone, Channel::Phone, Signal::ResetPasswordPhone { user, phone, token }),
    ]
}

fn effects(outcome: Outcome) -> Vec<Effect> {
    match outcome {
        Outcome::Done(effects) => effects,
        other => panic!("not done: {other:?}"),
    }
}

fn is_retry(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Retry { .. })
}

fn gave_up(outcome: Outcome, envelope: &Envelope) -> (MessageKind, Failure) {
    let effects = effects(outcome);
    let [Effect::Emit(told), Effect::Settle] = effects.as_slice() else { panic!("{effects:?}") };
    let Signal::NotificationFailed { message, signal, reason, .. } = &**told else { panic!("{told:?}") };
    assert_eq!(*signal, envelope.id);
    (*message, *reason)
}

#[tokio::test]
async fn a_live_token_is_sent_with_its_link_and_code() {
    let mut stage = Stage::new();
    let token = TokenId::new();
    for (kind, channel, signal) in token_signals(stage.user(), token) {
        let is_mail = channel == Channel::Email;
        stage.desk.address = if is_mail { email("Alice@Example.org") } else { phone("+44 7911 123412") };
        let envelope = envelope(signal);
        let outcome = stage.handle(&envelope).await;
        assert!(matches!(effects(outcome).as_slice(), [Effect::Delivered(of)] if *of == token));
        let sent = stage.outbox.take().remove(0);
        assert_eq!((sent.id, sent.kind, sent.channel, sent.at), (envelope.id, kind, channel, envelope.at));
        assert_eq!(sent.to, if is_mail { "Alice@example.org" } else { "+447911123412" });
        assert_eq!(sent.code(), Some(CODE));
        assert_eq!((sent.link(), sent.from.is_some()), (is_mail.then_some(LINK), is_mail));
        if !is_mail {
            assert!(sent.text.ends_with(&format!("@example.com #{CODE}")), "{}", sent.text);
        }
        for part in [Some(&sent.text), sent.html.as_ref(), sent.subject.as_ref()].into_iter().flatten() {
            assert!(!part.contains("evil"), "{part}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_not_live_is_not_sent() {
    let mut stage = Stage::new();
    let token = TokenId::new();
    let [(_, _, signal), ..] = token_signals(stage.user(), token);
    let envelope = envelope(signal);
    stage.desk.token = TokenState::Ended;
    assert!(effects(stage.handle(&envelope).await).is_empty());
    for (state, expected) in
        [(TokenState::Superseded, Failure::TokenMismatchOrExpired), (TokenState::Expired, Failure::Expired)]
    {
        stage.desk.token = state;
        let outcome = effects(stage.handle(&envelope).await);
        let [Effect::DeliveryFailed(of, reason)] = outcome.as_slice() else { panic!("{outcome:?}") };
        assert_eq!((*of, *reason), (token, expected), "its flow ends");
    }
    stage.desk.token = TokenState::Used;
    let outcome = effects(stage.handle(&envelope).await);
    assert!(matches!(outcome.as_slice(), [Effect::Delivered(of)] if *of == token), "it had been delivered");
    for unanswered in [Unanswered::StorageUnavailable, Unanswered::NotGranted] {
        stage.desk.token = TokenState::Unanswered(unanswered);
        assert!(is_retry(&stage.handle(&envelope).await));
    }
    assert!(stage.outbox.messages().is_empty());
}

#[tokio::test]
async fn a_transport_decides_between_trying_again_and_giving_up() {
    let mut stage = Stage::new();
    let token = TokenId::new();
    let [(_, _, signal), ..] = token_signals(stage.user(), token);
    let envelope = envelope(signal);
    stage.outbox.fail_next(1, SendError::Transient("421".into()));
    assert!(is_retry(&stage.handle(&envelope).await));
    stage.outbox.fail_next(1, SendError::Permanent("550".into()));
    let failed = |outcome| matches!(effects(outcome).as_slice(), [Effect::DeliveryFailed(of, Failure::EmailSendFailed)] if *of == token);
    assert!(failed(stage.handle(&envelope).await));
    assert!(stage.outbox.messages().is_empty());

    stage.notifier.route = Route::default();
    assert!(failed(stage.handle(&envelope).await));
}

#[tokio::test]
async fn a_second_transport_takes_what_the_first_refuses_for_good() {
    let mut stage = Stage::new();
    let second = CapturedOutbox::new();
    stage.notifier = stage.notifier.with_transport(second.transport(Channel::Email));
    let [(_, _, signal), ..] = token_signals(stage.user(), TokenId::new());
    let envelope = envelope(signal);
    stage.outbox.fail_next(1, SendError::Transient("421".into()));
    assert!(is_retry(&stage.handle(&envelope).await));
    assert!(second.messages().is_empty());
    stage.outbox.fail_next(1, SendError::Permanent("550".into()));
    assert!(matches!(effects(stage.handle(&envelope).await).as_slice(), [Effect::Delivered(_)]));
    assert_eq!((stage.outbox.messages().len(), second.messages().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_never_answers_is_not_waited_for() {
    struct Silent;
    impl Transport for Silent {
        fn channel(&self) -> Channel {
            Channel::Email
        }

        async fn send(&self, _message: &OutgoingMessage) -> Result<(), SendError> {
            std::future::pending().await
        }
    }
    let mut stage = Stage::new();
    stage.notifier.route = Route::default();
    stage.notifier = stage.notifier.with_transport(Silent);
    let [(_, _, signal), ..] = token_signals(stage.user(), TokenId::new());
    assert!(is_retry(&stage.handle(&envelope(signal)).await));
}

fn at(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

#[tokio::test]
async fn the_next_transport_has_what_the_first_is_out_for_and_it_is_left_alone() {
    let mut stage = Stage::new();
    let second = CapturedOutbox::new();
    stage.notifier = stage.notifier.with_transport(second.transport(Channel::Email));
    let due: Vec<_> = (0..7).map(|_| stage.taken(Channel::Email, "alice@example.org")).collect();
    stage.outbox.fail_next(5, SendError::unavailable("connection refused"));
    for envelope in &due[..6] {
        assert!(matches!(effects(stage.handle(envelope).await).as_slice(), [Effect::Settle]));
    }
    assert_eq!(second.take().len(), 6, "five that the first was out for, and one that it was not asked for");
    let states = stage.notifier.route().states();
    let email: Vec<_> = states.iter().filter(|state| state.channel == Channel::Email).collect();
    assert_eq!((email[0].name.as_str(), email[1].name.as_str()), ("email-1", "email-2"));
    assert_eq!((email[0].status, email[0].failures_in_row, email[0].unavailable), (TransportStatus::Open, 5, 5));
    assert_eq!(email[0].last_failure.as_deref(), Some("connection refused"));
    assert!(email[0].open_until.is_some_and(|until| until > NOW && until <= at(5)));
    assert_eq!((email[1].status, email[1].accepted), (TransportStatus::Closed, 6));
    assert!(serde_json::to_string(&states).unwrap().contains("\"open\""));
    stage.desk.now = at(5);
    stage.handle(&due[6]).await;
    assert_eq!((stage.outbox.take().len(), second.messages().len()), (1, 0), "it is back");
}

#[tokio::test]
async fn a_message_is_put_off_at_no_cost_while_every_transport_is_out() {
    let mut stage = Stage::new();
    let [(_, _, signal), ..] = token_signals(stage.user(), TokenId::new());
    let envelope = envelope(signal);
    stage.outbox.fail_next(1, SendError::unavailable("no route"));
    let until = stage.put_off(&envelope).await;
    assert!(until > NOW && until <= at(5));
    // Told when to come back, it is not asked before; nor is the message claimed.
    let told = SendError::Unavailable { reason: "429".into(), retry_after: Some(Duration::from_secs(120)) };
    stage.outbox.fail_next(1, told);
    assert_eq!(stage.put_off(&envelope).await, at(120));
    stage.desk.claims.lock().unwrap().clear();
    stage.desk.now = at(119);
    assert_eq!(stage.put_off(&envelope).await, at(120));
    assert!(stage.desk.claims.lock().unwrap().is_empty());
    // Never beyond the end of the link, which is to be told in time.
    stage.desk.now = at(120);
    let told = SendError::Unavailable { reason: "503".into(), retry_after: Some(Duration::MAX) };
    stage.outbox.fail_next(1, told);
    assert_eq!(stage.put_off(&envelope).await, at(3_600));
    stage.desk.now = at(3_600);
    stage.desk.token = TokenState::Expired;
    let outcome = effects(stage.handle(&envelope).await);
    assert!(matches!(outcome.as_slice(), [Effect::DeliveryFailed(_, Failure::Expired)]));
    assert!(stage.outbox.messages().is_empty());
}

#[tokio::test]
async fn a_message_that_keeps_failing_on_one_transport_goes_to_the_other_from_its_third_attempt_on() {
    let mut stage = Stage::new();
    let second = CapturedOutbox::new();
    stage.notifier = stage.notifier.with_transport(second.transport(Channel::Email));
    let envelope = stage.taken(Channel::Email, "alice@example.org");
    for attempt in [1, 2] {
        stage.attempt = attempt;
        stage.outbox.fail_next(1, SendError::Transient("451".into()));
        assert!(is_retry(&stage.handle(&envelope).await));
    }
    assert!(second.messages().is_empty(), "the first may have taken it all the same");
    stage.attempt = 3;
    stage.handle(&envelope).await;
    assert_eq!((stage.outbox.messages().len(), second.messages().len()), (0, 1));
}

#[tokio::test]
async fn what_goes_beyond_the_rate_waits_its_turn() {
    let mut stage = Stage::new();
    let terms = TransportTerms::named("slow").rate(2, Duration::from_secs(60));
    let transport = Arc::new(stage.outbox.transport(Channel::Email));
    stage.notifier.route = Route::default();
    stage.notifier = stage.notifier.with_transport_on(transport, terms).unwrap();
    let due: Vec<_> = (0..4).map(|_| stage.taken(Channel::Email, "alice@example.org")).collect();
    stage.handle(&due[0]).await;
    stage.desk.now = at(10);
    stage.handle(&due[1]).await;
    assert_eq!(stage.put_off(&due[2]).await, at(60));
    stage.desk.now = at(60);
    stage.handle(&due[2]).await;
    assert_eq!(stage.put_off(&due[3]).await, at(70));
    assert_eq!(stage.outbox.messages().len(), 3);
    let bad = TransportTerms::named("never").rate(0, Duration::from_secs(60));
    let notifier =
        Notifier::new(NotifierSettings::new("Example", "https://example.com"), Templates::embedded()).unwrap();
    let fault = notifier.with_transport_on(Arc::new(stage.outbox.transport(Channel::Email)), bad).unwrap_err();
    assert_eq!(fault.as_str(), "terms");
}

/// A transport that panics, or never answers.
struct Lost {
    panics: bool,
}

impl Transport for Lost {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    async fn send(&self, _message: &OutgoingMessage) -> Result<(), SendError> {
        assert!(!self.panics, "on purpose");
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_counts_against_the_transport_and_the_message_is_tried_there_again() {
    for panics in [true, false] {
        let mut stage = Stage::new();
        let second = CapturedOutbox::new();
        stage.notifier.route = Route::default();
        stage.notifier =
            stage.notifier.with_transport(Lost { panics }).with_transport(second.transport(Channel::Email));
        for _ in 0..5 {
            let envelope = stage.taken(Channel::Email, "alice@example.org");
            assert!(is_retry(&stage.handle(&envelope).await), "it may have arrived: not to be sent twice");
        }
        assert!(second.messages().is_empty());
        assert_eq!(stage.notifier.route().states()[0].status, TransportStatus::Open);
        let envelope = stage.taken(Channel::Email, "alice@example.org");
        stage.handle(&envelope).await;
        assert_eq!(second.messages().len(), 1, "the first is left alone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_dropped_while_it_waits_counts_against_the_transport_too() {
    let mut stage = Stage::new();
    stage.notifier.route = Route::default();
    stage.notifier = stage.notifier.with_transport(Lost { panics: false });
    for _ in 0..5 {
        let envelope = stage.taken(Channel::Email, "alice@example.org");
        let desk = Arc::new(std::mem::replace(&mut stage.desk, Stage::new_desk_place()));
        let context = SubscriberContext::new(Arc::clone(&desk) as Arc<dyn Desk>, 1, false);
        let handling = Subscriber::handle(&stage.notifier, &envelope, &context);
        assert!(tokio::time::timeout(Duration::from_secs(1), handling).await.is_err());
        drop(context);
        stage.desk = Arc::into_inner(desk).unwrap();
    }
    let states = stage.notifier.route().states();
    assert_eq!((states[0].status, states[0].unavailable), (TransportStatus::Open, 5));
}

#[tokio::test]
async fn only_whoever_has_the_claim_sends_or_gives_up() {
    let mut stage = Stage::new();
    let notice = stage.taken(Channel::Email, "alice@example.org");
    let [(_, _, signal), ..] = token_signals(stage.user(), TokenId::new());
    let delivery = envelope(signal);
    let held = Claim::Held { until: at(90) };
    for envelope in [&notice, &delivery] {
        stage.desk.claims.lock().unwrap().insert(envelope.id, held);
        assert_eq!(stage.put_off(envelope).await, at(90));
    }
    stage.desk.token = TokenState::Expired;
    assert_eq!(stage.put_off(&delivery).await, at(90));
    stage.desk.now = NOW.plus(Duration::from_secs(4 * 86_400));
    assert_eq!(stage.put_off(&notice).await, at(90));
    stage.desk.claims.lock().unwrap().insert(notice.id, Claim::Settled);
    assert!(effects(stage.handle(&notice).await).is_empty());
    assert!(stage.outbox.messages().is_empty());
}

#[tokio::test]
async fn a_code_that_is_over_is_not_sent() {
    let mut stage = Stage::new();
    for (kind, channel, signal) in token_signals(stage.user(), TokenId::new()) {
        stage.desk.address = if channel == Channel::Email { email("a@example.org") } else { phone("+447911123412") };
        for (now, code, link) in [(599, Some(CODE), channel == Channel::Email), (600, None, true)] {
            stage.desk.now = at(now);
            stage.handle(&envelope(signal.clone())).await;
            let sent = stage.outbox.take().remove(0);
            assert_eq!((sent.code(), sent.link()), (code, link.then_some(LINK)), "{kind:?}");
            assert_eq!(sent.text.contains(CODE), code.is_some());
            assert!(sent.html.as_ref().is_none_or(|html| html.contains(CODE) == code.is_some()));
        }
    }
}

fn signed_in(user: UserId, address: &str) -> Envelope {
    let agent = "Mozilla/5.0 (X11; Linux x86_64) Firefox/139.0 https://evil.example <b>";
    let method = majordomo_model::LoginMethod::Password;
    let mut envelope = envelope(Signal::UserAuthenticated { user, method, session: None, failures: None });
    if !address.is_empty() {
        envelope.context = Context::new().client_ip(address.parse().unwrap()).user_agent(agent);
    }
    envelope
}

#[tokio::test]
async fn a_sign_in_from_elsewhere_is_told_once_and_the_very_first_is_not() {
    let mut stage = Stage::new();
    let user = stage.user();
    stage.handle(&signed_in(user, "203.0.113.7")).await;
    stage.handle(&signed_in(user, "")).await;
    stage.handle(&signed_in(user, "203.0.113.8")).await;
    assert!(stage.outbox.messages().is_empty(), "the first, one that is not told of, and the same network");
    let elsewhere = signed_in(user, "198.51.100.9");
    let outcome = effects(stage.handle(&elsewhere).await);
    // What counts the notice, and what remembers the client.
    assert!(matches!(outcome.as_slice(), [Effect::Settle, Effect::Project { .. }, Effect::Project { .. }]));
    let sent = stage.outbox.take().remove(0);
    assert_eq!((sent.id, sent.kind, sent.to.as_str()), (elsewhere.id, MessageKind::NewSignIn, "Alice@example.org"));
    for part in [sent.text.as_str(), sent.html.as_deref().unwrap()] {
        assert!(part.contains("Firefox on Linux") && part.contains("198.51.100.*"), "{part}");
        assert!(part.contains("2026-01-01 00:00 UTC") && !part.contains("evil") && !part.contains("100.9"), "{part}");
    }
    stage.handle(&signed_in(user, "198.51.100.10")).await;
    assert!(stage.outbox.messages().is_empty());

    // Built anew, it remembers and sends nothing.
    stage.rebuilding = true;
    stage.handle(&signed_in(user, "192.0.2.1")).await;
    assert!(stage.outbox.messages().is_empty());
    stage.rebuilding = false;
    stage.handle(&signed_in(user, "192.0.2.2")).await;
    assert!(stage.outbox.messages().is_empty());
    let deleted = Signal::UserDeleted {
        user,
        username: None,
        sessions_revoked: 0,
        cause: majordomo_model::DeletionCause::ALL[0],
    };
    stage.handle(&envelope(deleted)).await;
    assert!(stage.desk.projection.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_sign_in_is_remembered_once_its_message_has_an_end() {
    let mut stage = Stage::new();
    let user = stage.user();
    stage.handle(&signed_in(user, "203.0.113.7")).await;
    let elsewhere = signed_in(user, "198.51.100.9");
    stage.outbox.fail_next(1, SendError::Transient("451".into()));
    assert!(is_retry(&stage.handle(&elsewhere).await));
    stage.outbox.fail_next(1, SendError::Permanent("550".into()));
    let outcome = effects(stage.handle(&elsewhere).await);
    let [Effect::Emit(told), Effect::Settle, Effect::Project { .. }] = outcome.as_slice() else {
        panic!("{outcome:?}")
    };
    assert!(matches!(**told, Signal::NotificationFailed { message: MessageKind::NewSignIn, .. }));
    stage.handle(&signed_in(user, "198.51.100.9")).await;
    assert!(stage.outbox.messages().is_empty());
}

#[tokio::test]
async fn sign_ins_are_not_asked_for_where_they_are_not_to_be_told() {
    let settings = NotifierSettings { new_sign_in: false, ..NotifierSettings::new("Example", "https://example.com") };
    let notifier = Notifier::new(settings, Templates::embedded()).unwrap();
    assert!(!notifier.filter().admits(SignalKind::UserAuthenticated));
    assert!(Stage::new().notifier.filter().admits(SignalKind::UserAuthenticated));
}

#[tokio::test]
async fn a_lock_is_told_while_it_lasts() {
    let mut stage = Stage::new();
    let locked = envelope(Signal::UserLocked { user: stage.user(), until: at(900), unlock: None });
    assert!(stage.notifier.filter().passes(&locked));
    stage.handle(&locked).await;
    let sent = stage.outbox.take().remove(0);
    assert_eq!((sent.kind, sent.to.as_str()), (MessageKind::AccountLocked, "Alice@example.org"));
    assert!(sent.text.contains("2026-01-01 00:15 UTC"), "{}", sent.text);
    stage.desk.now = at(900);
    let late = envelope(Signal::UserLocked { user: stage.user(), until: at(900), unlock: None });
    assert!(effects(stage.handle(&late).await).is_empty() && stage.outbox.messages().is_empty());
}

#[tokio::test]
async fn notices_go_to_the_address_they_are_about() {
    let mut stage = Stage::new();
    let id = stage.user();
    let changed = |channel, previous: &str| Signal::ContactChanged {
        user: id,
        contact: ContactId::new(),
        address: Personal::known("m***", "mallory@example.net"),
        previous: Personal::known("b***", previous),
        channel,
        undo: None,
    };
    let password = Signal::PasswordChanged { user: id, sessions_revoked: 1, undo: None };
    let reset = Signal::PasswordResetSuccessful { user: id, token: TokenId::new(), sessions_revoked: 1, undo: None };
    for (envelope, kind, to) in [
        (stage.taken(Channel::Email, "aLICE@Example.org"), MessageKind::AddressTaken, "Alice@example.org"),
        (stage.taken(Channel::Phone, "+44 7911 123412"), MessageKind::AddressTaken, "+447911123412"),
        (envelope(changed(Channel::Email, "before@example.com")), MessageKind::ContactChanged, "before@example.com"),
        (envelope(changed(Channel::Phone, "+447911123498")), MessageKind::ContactChanged, "+447911123498"),
        (envelope(password), MessageKind::PasswordChanged, "Alice@example.org"),
        (envelope(reset), MessageKind::PasswordChanged, "Alice@example.org"),
    ] {
        let outcome = effects(stage.handle(&envelope).await);
        // Text messages are counted, but for what the flow that causes them counts.
        assert!(
            match outcome.as_slice() {
                [Effect::Settle] => to.contains('@') || kind == MessageKind::AddressTaken,
                [Effect::Settle, Effect::Project { .. }] => to.starts_with('+'),
                _ => false,
            },
            "{kind:?} to {to}: {} effects",
            outcome.len()
        );
        let sent = stage.outbox.take();
        assert_eq!(sent.len(), 1, "{kind:?}");
        assert_eq!((sent[0].kind, sent[0].to.as_str()), (kind, to));
        assert_eq!((sent[0].link(), sent[0].code()), (None, None));
        let shown = [Some(&sent[0].text), sent[0].html.as_ref()];
        assert!(shown.into_iter().flatten().all(|text| !text.contains("/accounts/") && !text.contains("mallory")));
        // Set back to an earlier place, it does not send again.
        assert!(effects(stage.handle(&envelope).await).is_empty());
        assert!(stage.outbox.messages().is_empty());
    }
}

#[tokio::test]
async fn the_phone_serves_where_no_mail_address_is_proven() {
    let mut stage = Stage::new();
    let mut claimed = proven(email("alice@example.org"));
    (claimed.proven_at, claimed.primary) = (None, false);
    stage.desk.user = Some(user(vec![claimed.clone(), proven(phone("+447911123412"))]));
    let signal = Signal::PasswordChanged { user: stage.user(), sessions_revoked: 0, undo: None };
    stage.handle(&envelope(signal)).await;
    assert_eq!(stage.outbox.take()[0].to, "+447911123412");

    stage.desk.user = Some(user(vec![claimed]));
    let signal = Signal::PasswordChanged { user: stage.user(), sessions_revoked: 0, undo: None };
    assert!(effects(stage.handle(&envelope(signal)).await).is_empty());
    assert!(stage.outbox.messages().is_empty());
}

#[tokio::test]
async fn whoever_is_gone_is_not_written_to() {
    let mut stage = Stage::new();
    let id = stage.user();
    let forgotten =
        Signal::AddressTaken { owner: id, address: Personal::redacted_only("a***@e***.com"), channel: Channel::Email };
    assert!(effects(stage.handle(&envelope(forgotten)).await).is_empty());
    let given_up_since = stage.taken(Channel::Email, "carol@example.com");
    assert!(effects(stage.handle(&given_up_since).await).is_empty());
    stage.desk.user = None;
    let signal = Signal::PasswordChanged { user: id, sessions_revoked: 0, undo: None };
    assert!(effects(stage.handle(&envelope(signal.clone())).await).is_empty());
    stage.desk.storage_is_out = true;
    assert!(is_retry(&stage.handle(&envelope(signal)).await));
    assert!(stage.outbox.messages().is_empty());
}

#[tokio::test]
async fn a_notice_is_given_up_once() {
    let mut stage = Stage::new();
    let refused = stage.taken(Channel::Email, "alice@example.org");
    stage.outbox.fail_next(1, SendError::Permanent("550".into()));
    let outcome = stage.handle(&refused).await;
    assert_eq!(gave_up(outcome, &refused), (MessageKind::AddressTaken, Failure::EmailSendFailed));
    assert!(effects(stage.handle(&refused).await).is_empty());

    let late = stage.taken(Channel::Email, "alice@example.org");
    stage.outbox.fail_next(2, SendError::Transient("421".into()));
    assert!(is_retry(&stage.handle(&late).await));
    stage.desk.now = NOW.plus(Duration::from_secs(3 * 86_400));
    assert!(is_retry(&stage.handle(&late).await));
    stage.desk.now = NOW.plus(Duration::from_secs(3 * 86_400 + 1));
    let outcome = stage.handle(&late).await;
    assert_eq!(gave_up(outcome, &late), (MessageKind::AddressTaken, Failure::Expired));
    assert!(stage.outbox.messages().is_empty());
}

#[tokio::test]
async fn an_address_that_could_forge_a_header_gets_nothing() {
    let mut stage = Stage::new();
    for (channel, address, reason) in [
        (Channel::Email, "a@example.com\r\nBcc: b@example.com", Failure::EmailInvalid),
        (Channel::Email, "a@example.com, b@example.com", Failure::EmailInvalid),
        (Channel::Phone, "+447911123412\n+447911123413", Failure::PhoneInvalid),
    ] {
        let envelope = stage.taken(channel, address);
        let outcome = stage.handle(&envelope).await;
        assert_eq!(gave_up(outcome, &envelope), (MessageKind::AddressTaken, reason));
    }
    assert!(stage.outbox.messages().is_empty());
}

#[tokio::test]
async fn signals_that_ask_for_nothing_are_done() {
    let mut stage = Stage::new();
    let others = envelope(Signal::UserDeletionStarted { user: stage.user() });
    assert!(effects(stage.handle(&others).await).is_empty());
    let filter = stage.notifier.filter();
    assert!(!filter.passes(&others));
    for (_, _, signal) in token_signals(stage.user(), TokenId::new()) {
        assert!(filter.passes(&envelope(signal)));
    }
    assert!(filter.passes(&stage.taken(Channel::Email, "a@b.c")));
    assert!(stage.outbox.messages().is_empty());
}

#[test]
fn a_notifier_asks_for_links_and_codes_of_the_channels_that_it_has_a_transport_for() {
    let notifier =
        || Notifier::new(NotifierSettings::new("Example", "https://example.com/"), Templates::embedded()).unwrap();
    let outbox = CapturedOutbox::new();
    let email = [SignalKind::ResetPasswordEmail, SignalKind::VerifyEmail];
    let phone = [SignalKind::ResetPasswordPhone, SignalKind::VerifyPhone];
    for (notifier, by_email, by_phone) in [
        (notifier(), false, false),
        (notifier().with_transport(outbox.transport(Channel::Email)), true, false),
        (notifier().with_transport(outbox.transport(Channel::Phone)), false, true),
    ] {
        let filter = notifier.filter();
        assert!(email.iter().all(|kind| filter.admits(*kind) == by_email));
        assert!(phone.iter().all(|kind| filter.admits(*kind) == by_phone));
        assert!(filter.admits(SignalKind::PasswordChanged));
    }
}

#[tokio::test]
async fn a_user_is_written_to_in_their_language() {
    let mut stage = Stage::new();
    let templates =
        Templates::embedded().with_template("password_changed_phone.de.txt", "Neues Kennwort. {{ undo_link or '' }}");
    stage.notifier.composer = Composer::new(templates).unwrap();
    for (locale, shown) in [("de-AT", "de"), ("fr", "en"), ("<script>", "en")] {
        let mut german = user(vec![proven(phone("+447911123412"))]);
        german.profile.locale = Some(locale.into());
        stage.desk.user = Some(german);
        let signal = Signal::PasswordChanged { user: stage.user(), sessions_revoked: 0, undo: None };
        stage.handle(&envelope(signal)).await;
        let sent = stage.outbox.take().remove(0);
        assert_eq!((sent.locale.as_str(), sent.text.starts_with("Neues")), (shown, shown == "de"));
    }
}

#[test]
fn a_notifier_that_would_fail_later_is_refused() {
    let bad = NotifierSettings::new("Exam\r\nple", "https://example.com");
    assert_eq!(Notifier::new(bad, Templates::embedded()).unwrap_err(), NotifierFault::AppName);
    let good = NotifierSettings::new("Example", "https://example.com");
    let broken = Templates::embedded().with_template("verify_email.html", "{% if %}");
    let fault = Notifier::new(good, broken).unwrap_err();
    assert_eq!(fault.as_str(), "templates");
    assert!(fault.to_string().contains("verify_email.html"), "{fault}");
}

/// Writes every event at every level as text.
#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<String>>);

impl tracing::Subscriber for CapturedLog {
    fn enabled(&self, _metadata: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Text(&mut self.0.lock().unwrap()));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Text(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Text(&mut self.0.lock().unwrap()));
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

struct Text<'a>(&'a mut String);

impl tracing::field::Visit for Text<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        writeln!(self.0, "{field}={value:?}").unwrap();
    }
}

#[tokio::test]
async fn neither_logs_nor_debug_show_a_message_or_an_address() {
    let log = CapturedLog::default();
    let guard = tracing::subscriber::set_default(log.clone());
    let mut stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    stage.notifier = stage.notifier.with_transport(Maildir::email(folder.path()));
    let mut shown = String::new();
    for error in [None, Some(SendError::Transient("421".into())), Some(SendError::Permanent("550".into()))] {
        let mut due: Vec<_> =
            token_signals(stage.user(), TokenId::new()).into_iter().map(|(_, _, signal)| envelope(signal)).collect();
        due.push(stage.taken(Channel::Email, "Alice@Example.org"));
        due.push(stage.taken(Channel::Email, "Alice@Example.org\nBcc: a@b.c"));
        for envelope in &due {
            stage
                .outbox
                .fail_next(usize::from(error.is_some()), error.clone().unwrap_or(SendError::Transient("-".into())));
            let outcome = stage.handle(envelope).await;
            write!(shown, "{outcome:?} {envelope:?}").unwrap();
        }
    }
    drop(guard);
    assert!(log.0.lock().unwrap().contains("a message was not sent"));
    shown.push_str(&log.0.lock().unwrap());
    let sent = stage.outbox.messages();
    assert!(sent.len() >= 3 && sent.iter().any(|message| message.text.contains(LINK)));
    write!(shown, "{sent:?} {:#?} {:?} {:?}", sent[0], stage.outbox, stage.notifier).unwrap();
    for canary in ["CANARYLINK", CODE, "lice@", "Please confirm", "7911123"] {
        assert!(!shown.contains(canary), "{canary} in {shown}");
    }
}
