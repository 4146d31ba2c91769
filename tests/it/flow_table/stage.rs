//! The stage: a system with a live listener, the run of one flow on it, and what holds for every run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use majordomo::notifier::{NotifierSettings, Templates};
use majordomo::ractor::{self, Actor as _, ActorProcessingErr, ActorRef};
use majordomo::testing::{BASE_URL, TestAccounts};
use majordomo::{
    Actor, Answer, Authenticate, Builder, Command, Config, ConfirmEmail, ConfirmPhone, Context, Envelope, Error,
    Filter, Flow, FlowId, FlowKind, HashParameters, Lane, Live, LoggedIn, OneTimeCode, Password, Proof, Question,
    Reason, Register, Signal, SignalClass, SignalKind, TokenId, UserId,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub const PASSWORD: &str = "nine lanterns over a quiet harbour";
pub const OTHER_PASSWORD: &str = "seventeen purple elephants";
pub const PHONE: &str = "+447911123456";
pub const OTHER_PHONE: &str = "+447911123457";
const WAIT: Duration = Duration::from_secs(180);

/// What the rows have shown so far.
#[derive(Default)]
pub struct Table {
    pub kinds: BTreeSet<SignalKind>,
    reasons: BTreeSet<(&'static str, &'static str)>,
}

impl Table {
    /// Ends a stage: its log must be lawful, and what it showed counts.
    pub async fn close(&mut self, stage: Stage) {
        stage.test.drain().await;
        let log = stage.test.recorded();
        assert_lawful(&log);
        self.kinds.extend(log.iter().map(|envelope| envelope.signal.kind()));
        self.reasons.extend(stage.reasons);
    }

    /// Every reason was provoked, or is listed with a sentence why it cannot be.
    pub fn assert_covers<R: Reason>(&self, flow: FlowKind, all: &[R], beyond: &[(R, &str)]) {
        for reason in all {
            let provoked = self.reasons.contains(&(flow.as_str(), reason.as_str()));
            let excused = beyond.iter().any(|(listed, why)| listed == reason && !why.is_empty());
            assert!(provoked != excused, "{flow:?} {}: provoked {provoked}, excused {excused}", reason.as_str());
        }
    }
}

/// The laws of the log: places without gaps, and for each flow exactly one start and one end, or at most one for a
/// delivery. A flow without a start tells of operation or of a notice only.
pub fn assert_lawful(log: &[Envelope]) {
    let places: Vec<_> = log.iter().filter_map(|envelope| envelope.seq).collect();
    assert_eq!(places, (1..).take(log.len()).collect::<Vec<_>>());
    let ids: BTreeSet<_> = log.iter().map(|envelope| envelope.id.to_string()).collect();
    assert_eq!(ids.len(), log.len(), "an id stands twice");
    let mut flows: BTreeMap<String, Vec<SignalKind>> = BTreeMap::new();
    for envelope in log {
        flows.entry(envelope.flow.to_string()).or_default().push(envelope.signal.kind());
    }
    for kinds in flows.into_values() {
        let starts: Vec<_> = kinds.iter().flat_map(|kind| kind.starts()).collect();
        let [flow] = starts.as_slice() else {
            let startless =
                |kind: &SignalKind| kind.class() == SignalClass::Operation || *kind == SignalKind::NotificationFailed;
            assert!(starts.is_empty() && kinds.iter().all(startless), "{kinds:?}");
            continue;
        };
        let ends = kinds.iter().filter(|kind| kind.ends().contains(flow)).count();
        assert!(ends == 1 || (ends == 0 && **flow == FlowKind::Delivery), "{kinds:?}");
    }
}

/// An actor that passes on what it hears.
struct Ear;

#[ractor::actor(message = Live, state = mpsc::UnboundedSender<Arc<Envelope>>, arguments = mpsc::UnboundedSender<Arc<Envelope>>)]
impl Ear {
    async fn pre_start(
        &self,
        _myself: ActorRef<Live>,
        heard: mpsc::UnboundedSender<Arc<Envelope>>,
    ) -> Result<mpsc::UnboundedSender<Arc<Envelope>>, ActorProcessingErr> {
        Ok(heard)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Live>,
        live: Live,
        heard: &mut mpsc::UnboundedSender<Arc<Envelope>>,
    ) -> Result<(), ActorProcessingErr> {
        heard.send(Arc::clone(&live.envelope)).map_err(Into::into)
    }
}

/// What a live subscriber hears.
pub struct Heard(mpsc::UnboundedReceiver<Arc<Envelope>>);

impl Heard {
    /// Listens to everything from now on.
    pub async fn listen(test: &TestAccounts) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (ear, _) = Ear::spawn(None, Ear, sender).await.unwrap();
        test.listen(&ear, Filter::all(), 100_000);
        Self(receiver)
    }

    /// The next signal that is such; what comes before it is skipped.
    pub async fn next(&mut self, wanted: impl Fn(&Envelope) -> bool) -> Arc<Envelope> {
        let heard = async {
            loop {
                let envelope = self.0.recv().await.expect("the listener lives");
                if wanted(&envelope) {
                    return envelope;
                }
            }
        };
        tokio::time::timeout(WAIT, heard).await.expect("the signal was told live")
    }
}

/// A system on which flows are run one by one.
pub struct Stage {
    pub test: TestAccounts,
    heard: Heard,
    runs: u32,
    reasons: BTreeSet<(&'static str, &'static str)>,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::made(change, |builder| builder).await
    }

    /// A stage of a changed configuration and a changed builder. Its text messages hold the link beside the code.
    pub async fn made(change: impl FnOnce(&mut Config), build: impl FnOnce(Builder) -> Builder) -> Self {
        let mut config = Config::default();
        config.hashing.parameters = HashParameters::cheap_for_tests();
        config.hashing.queue = Some(10_000);
        config.messages = Some(NotifierSettings::new("Example", BASE_URL));
        change(&mut config);
        let test = TestAccounts::with(config, |builder| build(with_links(builder))).await;
        let heard = Heard::listen(&test).await;
        Self { test, heard, runs: 0, reasons: BTreeSet::new() }
    }

    pub async fn restart_with(self, change: impl FnOnce(Builder) -> Builder) -> Self {
        let test = self.test.restart_with(|builder| change(with_links(builder))).await.unwrap();
        let heard = Heard::listen(&test).await;
        Self { test, heard, ..self }
    }

    /// Runs a flow, and checks of it what holds for every run.
    pub async fn run<F: Question>(&mut self, message: impl Into<Command<F>>) -> Ran<F> {
        self.run_as(Actor::Admin("operator-7".to_owned()), message).await
    }

    pub async fn run_as<F: Question>(&mut self, actor: Actor, message: impl Into<Command<F>>) -> Ran<F> {
        self.runs += 1;
        let context = Context::new().request_id(&format!("run-{}", self.runs)).user_agent("flow table");
        let context = context.client_ip(IpAddr::from([192, 0, 2, 1]));
        let command = message.into().actor(actor.clone()).context(context.clone());
        let before = self.test.head();
        let answer = self.test.ask(command).await;
        if let Err(Error::Refused(reason)) = &answer {
            self.reasons.insert((F::KIND.as_str(), reason.as_str()));
        }
        let told = |told: &Context| told.told_request_id() == context.told_request_id();
        let starts = |envelope: &Envelope| told(&envelope.context) && envelope.signal.kind().starts() == [F::KIND];
        let log = self.test.signals(before, 1_000).await.unwrap();
        let signals = run_of(&log, starts);
        let live = self.heard.next(starts).await;
        let start = &signals[0];
        assert_eq!((live.seq, live.id, live.flow, live.at), (None, start.id, start.flow, start.at));
        assert_eq!(live.signal, start.signal, "the durable copy of the start is the same signal");
        for envelope in &signals {
            assert!(envelope.actor == actor && told(&envelope.context));
            // What is personal in it is sealed under the user's key, and gone with the user.
            let gone = matches!(envelope.lane, Lane::User(user) if self.test.user(user).unwrap().is_none());
            assert_eq!(personal(&envelope.context), if gone { (None, None) } else { personal(&context) });
            assert_eq!(envelope.sender, envelope.signal.kind().sender(), "{:?}", envelope.signal.kind());
        }
        Ran { answer, signals }
    }

    /// Registers somebody with a username and an e-mail address of that name, which stays a claim.
    pub async fn claimed(&self, name: &str) -> UserId {
        let request = Register { username: Some(name.into()), email: Some(email(name)), ..Register::new(PASSWORD) };
        let user = self.test.register(request).await.unwrap().user;
        self.test.drain().await;
        user
    }

    /// Registers somebody who proves their e-mail address.
    pub async fn verified(&self, name: &str) -> UserId {
        let user = self.claimed(name).await;
        self.test.confirm_email(ConfirmEmail { proof: self.link(&email(name)) }).await.unwrap();
        user
    }

    /// Registers somebody who proves a phone number, and has nothing else.
    pub async fn phoned(&self, phone: &str) -> UserId {
        let request = Register { phone: Some(phone.into()), ..Register::new(PASSWORD) };
        let user = self.test.register(request).await.unwrap().user;
        self.test.drain().await;
        self.test.confirm_phone(ConfirmPhone { proof: self.link(phone) }).await.unwrap();
        user
    }

    pub async fn disabled(&self, name: &str) -> UserId {
        let user = self.verified(name).await;
        self.test.disable(majordomo::Disable { user }).await.unwrap();
        user
    }

    pub async fn login(&self, name: &str) -> LoggedIn {
        self.test.authenticate(login(name, PASSWORD)).await.unwrap()
    }

    /// The link of the last message to an address.
    pub fn link(&self, address: &str) -> Proof {
        let message = self.test.messages().last_to(address).expect("a message");
        Proof::from_link(message.link().expect("a link")).unwrap()
    }

    /// The code of the last message to an address, as the answer to a challenge.
    pub fn code(&self, address: &str, challenge: TokenId) -> Proof {
        let message = self.test.messages().last_to(address).expect("a message");
        Proof::Code { challenge, code: OneTimeCode::new(message.code().expect("a code")) }
    }
}

fn with_links(builder: Builder) -> Builder {
    builder.templates(
        Templates::embedded()
            .with_template("verify_phone.txt", "{% if code %}{{ code }}\n{% endif %}{{ link or '' }}\n"),
    )
}

pub fn email(name: &str) -> String {
    format!("{name}@example.com")
}

pub fn login(identifier: &str, password: &str) -> Authenticate {
    Authenticate { identifier: identifier.to_owned(), password: Password::new(password) }
}

/// A proof that is none.
pub fn malformed() -> Proof {
    Proof::from_link("/accounts/nobody/nothing/").unwrap()
}

/// A code that is well formed and answers a challenge wrongly.
pub fn wrong_code(right: &Proof) -> Proof {
    let Proof::Code { challenge, code } = right else { panic!("not a code") };
    let wrong = code.expose().chars().map(|digit| if digit == '9' { '0' } else { '9' }).collect::<String>();
    Proof::Code { challenge: *challenge, code: OneTimeCode::new(wrong) }
}

/// What a context tells of a person. It is sealed under another nonce each time.
pub fn personal(context: &Context) -> (Option<IpAddr>, Option<&str>) {
    (context.told_client_ip(), context.told_user_agent())
}

/// Takes one run out of the log: what lies from its start to its end is its own, or starts a delivery that it led to.
pub fn run_of(log: &[Envelope], starts: impl Fn(&Envelope) -> bool) -> Vec<Envelope> {
    let [first] = log.iter().enumerate().filter(|(_, envelope)| starts(envelope)).collect::<Vec<_>>()[..] else {
        panic!("the log holds not exactly one start of the run");
    };
    let (flow, kind) = (first.1.flow, first.1.signal.kind().starts()[0]);
    let is_end = |envelope: &&Envelope| envelope.flow == flow && envelope.signal.kind().ends().contains(&kind);
    assert_eq!(log.iter().filter(is_end).count(), 1, "the run has one end");
    let end = log.iter().position(|envelope| is_end(&envelope)).unwrap();
    let run = log[first.0..=end].to_vec();
    assert!(log[end + 1..].iter().all(|envelope| envelope.flow != flow), "the end is the last signal of its run");
    for (earlier, later) in run.iter().zip(&run[1..]) {
        assert!(earlier.at <= later.at && earlier.seq < later.seq);
    }
    for envelope in &run {
        let leads_to_delivery = envelope.signal.kind().starts() == [FlowKind::Delivery];
        let (expected_flow, expected_cause) = if leads_to_delivery { (None, Some(flow)) } else { (Some(flow), None) };
        assert_eq!((expected_flow.unwrap_or(envelope.flow), envelope.cause), (envelope.flow, expected_cause));
        assert_eq!(leads_to_delivery, envelope.flow != flow, "a delivery is a flow of its own");
        assert_eq!(envelope.lane, run[0].lane, "one lane");
    }
    run
}

/// A run of a flow: what its caller got, and its signals in the order of the log.
pub struct Ran<F: Flow> {
    pub answer: Answer<F>,
    pub signals: Vec<Envelope>,
}

impl<F: Flow> Ran<F> {
    #[track_caller]
    pub fn granted(&self) -> F::Reply {
        match &self.answer {
            Ok(reply) => reply.clone(),
            Err(error) => panic!("{:?} failed with {}", F::KIND, error.as_str()),
        }
    }

    #[track_caller]
    pub fn refused(&self, reason: F::Reason) -> &Self {
        self.failed(Error::Refused(reason))
    }

    #[track_caller]
    pub fn failed(&self, error: Error<F::Reason>) -> &Self {
        match &self.answer {
            Ok(_) => panic!("{:?} succeeded instead of {}", F::KIND, error.as_str()),
            Err(found) => assert_eq!(found.as_str(), error.as_str(), "{:?}", F::KIND),
        }
        self
    }

    /// The signals of the run are exactly these, each with these fields among others.
    #[track_caller]
    pub fn tells(&self, expected: &[(SignalKind, Value)]) -> &Self {
        assert_tells(&self.signals, expected);
        self
    }

    /// The delivery flows that the run led to.
    pub fn deliveries(&self) -> Vec<FlowId> {
        let starting = |envelope: &&Envelope| envelope.signal.kind().starts() == [FlowKind::Delivery];
        self.signals.iter().filter(starting).map(|envelope| envelope.flow).collect()
    }

    /// Whether every signal of the run is in the lane of this user.
    pub fn lane_of(&self, user: UserId) -> bool {
        self.signals.iter().all(|envelope| envelope.lane == Lane::User(user))
    }
}

#[track_caller]
pub fn assert_tells(signals: &[Envelope], expected: &[(SignalKind, Value)]) {
    let kinds: Vec<_> = signals.iter().map(|envelope| envelope.signal.kind()).collect();
    assert_eq!(kinds, expected.iter().map(|(kind, _)| *kind).collect::<Vec<_>>());
    for (envelope, (kind, fields)) in signals.iter().zip(expected) {
        assert!(shows(envelope, fields), "{kind:?}: {fields} in {}", data(&envelope.signal));
    }
}

fn data(signal: &Signal) -> Value {
    serde_json::to_value(signal).unwrap().get("data").cloned().unwrap_or(json!({}))
}

/// Personal data is compared by its printable form.
fn fits(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(personal), Value::String(_)) => personal.get("redacted") == Some(expected),
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, expected)| fits(found, expected))
        }
        _ => found == expected,
    }
}

/// Whether a signal has these fields among others.
pub fn shows(envelope: &Envelope, fields: &Value) -> bool {
    let data = data(&envelope.signal);
    let fields = fields.as_object().expect("an object of fields");
    fields.iter().all(|(name, value)| data.get(name).is_some_and(|found| fits(found, value)))
}
