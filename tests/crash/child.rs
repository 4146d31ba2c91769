//! The child: the real system on a real file, which does what the parent asks until it is killed.

use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use majordomo::notifier::{NotifierSettings, OutgoingMessage, SendError, Transport};
use majordomo::{
    Accounts, Actor, AuditQuery, Authenticate, Change, ChangeGroups, ChangePassword, Channel, Claimant, Command,
    ConfirmEmail, Context, Delete, Disable, Effect, Enable, EndSessions, Envelope, Error, Filter, HashParameters,
    LogOut, Outcome, PAGE_LIMIT, Password, Proof, Question as Asked, Register, RequestEmailVerification,
    RequestPasswordReset, ResetPassword, RetryPolicy, SessionToken, SessionsToEnd, Signal, SignalKind, Start,
    Subscriber, SubscriberContext, Subscription, Update,
};
use serde_json::{Value, json};

use crate::wire::{
    Act, Answer, Ask, DATABASE, ECHO, Entry, FOLD, LANES, Lines, MESSAGES, PILL, PILL_ATTEMPTS, POISON, Question,
    REGISTER, REGISTER_KINDS, Reply, Sent, TALLY, Terms, WITNESS, fold, tally_keys,
};

/// Names the lie that the child is to tell, so that the judge can be seen to find it out.
pub(crate) const CHILD_LIES: &str = "MAJORDOMO_CRASH_CHILD_LIES";
/// A change of name is answered before it is done; a signal is not counted in the projection.
pub(crate) const LIES: [&str; 2] = ["early_answer", "skipped_projection"];

fn lies(lie: &str) -> bool {
    std::env::var(CHILD_LIES).is_ok_and(|told| told == lie)
}

/// Serves until it is killed, asked to shut down, or the parent is gone.
pub(crate) fn serve(folder: PathBuf, terms: Terms) {
    tokio::runtime::Runtime::new().unwrap().block_on(async move {
        match spawn(&folder, terms).await {
            Ok(accounts) => {
                reply(0, Answer::Done(Value::Null));
                answer_lines(accounts).await;
            }
            Err(error) => reply(0, Answer::Failed(error)),
        }
    });
}

async fn spawn(folder: &Path, terms: Terms) -> Result<Accounts, String> {
    let lines = |name: &str| Lines::open(&folder.join(name)).map_err(|error| error.to_string());
    let accounts = Accounts::builder()
        .file(folder.join(DATABASE))
        .configure(|config| {
            config.hashing.parameters = HashParameters::cheap_for_tests();
            config.hashing.queue = Some(10_000);
            config.messages = Some(NotifierSettings::new("Example", "https://accounts.example.com"));
            config.policy.failures_per_source = u32::MAX;
            // What is asked for again and again is to be done each time.
            config.policy.messages.cool_down = Duration::ZERO;
            config.policy.messages.per_hour = None;
            config.policy.messages.per_day = None;
            config.policy.messages.texts = majordomo::TextLimits::none();
            config.policy.limits = majordomo::Limits::none();
            config.storage.idle_flush = Duration::from_millis(20);
            if terms == Terms::Prunes {
                config.storage.keep_signals = Duration::ZERO;
            }
        })
        .transport(Post(lines(MESSAGES)?))
        .subscriber(WITNESS, Filter::all(), Start::Beginning, Witness(lines(WITNESS)?))
        .subscriber(REGISTER, Filter::kinds(REGISTER_KINDS), Start::Beginning, Witness(lines(REGISTER)?))
        .subscriber(TALLY, Filter::all(), Start::Beginning, Tally)
        .subscriber(ECHO, Filter::kinds([SignalKind::UserRegistered]), Start::Beginning, Echo);
    let lanes = Subscription::new(LANES, Witness(lines(LANES)?)).start(Start::Beginning).concurrency(4).batch(8);
    let accounts = accounts.subscription(lanes);
    let accounts = match terms {
        Terms::Prunes | Terms::Keeps => accounts,
        Terms::Poisoned { concurrency, batch } => {
            let pill = Subscription::new(PILL, Pill(lines(PILL)?)).start(Start::Beginning);
            let retry = RetryPolicy { attempts: Some(PILL_ATTEMPTS), ..RetryPolicy::default() };
            accounts.subscription(pill.concurrency(concurrency).batch(batch).retry(retry))
        }
    };
    accounts.spawn().await.map_err(|error| error.to_string())
}

/// Notes every signal before it answers: that is what having seen it means.
struct Witness(Lines);

impl Subscriber for Witness {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        match self.0.append(&Entry::of(envelope)) {
            Ok(()) => Outcome::done(),
            Err(error) => Outcome::retry(error.to_string()),
        }
    }
}

/// Notes what it handled, and takes the process with it at one kind of signal.
struct Pill(Lines);

impl Subscriber for Pill {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        if envelope.signal.kind() == POISON {
            std::process::abort();
        }
        self.0.append(&Entry::of(envelope)).unwrap();
        Outcome::done()
    }
}

/// Counts signals by kind and by user, and folds all of them: wrong as soon as one is applied twice or skipped.
struct Tally;

impl Subscriber for Tally {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let entry = Entry::of(envelope);
        if entry.seq == 50 && lies("skipped_projection") {
            return Outcome::done();
        }
        let number = |key: &str| context.projection(key.as_bytes()).map(|stored| as_number(stored.as_deref()));
        let project = |key: String, value: u64| {
            let value = value.to_be_bytes().to_vec();
            Effect::Project { key: key.into_bytes(), value }
        };
        let counted = tally_keys(&entry).map(|key| Ok(project(key.clone(), number(&key)? + 1)));
        let folded = [FOLD].into_iter().map(|key| Ok(project(key.to_owned(), fold(number(key)?, &entry))));
        match counted.chain(folded).collect::<Result<_, majordomo::Unanswered>>() {
            Ok(effects) => Outcome::Done(effects),
            Err(out) => Outcome::retry(out.to_string()),
        }
    }
}

fn as_number(stored: Option<&[u8]>) -> u64 {
    stored.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

/// Adds a signal to every registration.
struct Echo;

impl Subscriber for Echo {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        let effect = envelope.signal.user().map(|user| {
            Effect::Emit(Box::new(Signal::UserPasswordChecked { user, success: true, needs_rehash: false }))
        });
        Outcome::Done(effect.into_iter().collect())
    }
}

/// A mail server that is a file.
struct Post(Lines);

impl Transport for Post {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        let link = message.text.lines().map(str::trim).find(|line| line.starts_with("https://")).map(str::to_owned);
        let sent = Sent { signal: message.id, link };
        self.0.append(&sent).map_err(|error| SendError::Transient(error.to_string()))
    }
}

/// Answers every line as a task of its own.
async fn answer_lines(accounts: Accounts) {
    let (sender, mut questions) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(question) = serde_json::from_str::<Question>(&line.unwrap()) else { break };
            if sender.send(question).is_err() {
                break;
            }
        }
    });
    let (accounts, ended) = (Arc::new(accounts), Arc::new(tokio::sync::Notify::new()));
    let serving = async {
        while let Some(Question { number, ask }) = questions.recv().await {
            let (accounts, ended) = (Arc::clone(&accounts), Arc::clone(&ended));
            tokio::spawn(async move {
                let is_last = matches!(ask, Ask::Shutdown);
                reply(number, answer(&accounts, ask).await);
                if is_last {
                    ended.notify_one();
                }
            });
        }
    };
    tokio::select! {
        () = serving => {}
        () = ended.notified() => {}
    }
    // The thread that reads would be waited for by nobody.
    std::process::exit(0);
}

fn reply(number: u64, answer: Answer) {
    let line = serde_json::to_string(&Reply { number, answer }).unwrap();
    let mut out = std::io::stdout().lock();
    // Nobody listens any more if the parent is gone; the end of its questions tells so too.
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

async fn answer(accounts: &Accounts, ask: Ask) -> Answer {
    match ask {
        Ask::Act { id, source, act } => {
            let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, source));
            let context = Context::new().request_id(&id.to_string()).client_ip(address);
            if let (Act::Rename { user, .. }, true) = (&act, lies("early_answer")) {
                let version = accounts.user(*user).unwrap().map_or(0, |user| user.version);
                let accounts = accounts.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Run { accounts: &accounts, id, context }.run(act).await
                });
                return Answer::Done(json!(version + 1));
            }
            Run { accounts, id, context }.run(act).await
        }
        Ask::Users => told(users(accounts).await),
        Ask::Log { after } => {
            let signals = accounts.signals(after, PAGE_LIMIT).await;
            told(signals.map(|signals| json!(signals.iter().map(Entry::of).collect::<Vec<_>>())))
        }
        Ask::Trail { after } => {
            let query = AuditQuery { after: Some(after), newest_first: false, limit: 1_000, ..AuditQuery::default() };
            let page = accounts.audit(query).await;
            told(page.map(|page| json!(page.records.iter().map(|record| (record.seq, record.id)).collect::<Vec<_>>())))
        }
        Ask::Projection { keys } => {
            let value = |key: &String| accounts.projection(TALLY, key.as_bytes());
            let values = keys.iter().map(|key| Ok((key, as_number(value(key)?.as_deref()))));
            told(values.collect::<Result<Vec<_>, majordomo::Unreadable>>().map(|values| json!(values)))
        }
        Ask::Sessions { tokens } => {
            let alive =
                tokens.into_iter().map(|token| Ok(accounts.check_session(&SessionToken::new(token))?.is_some()));
            told(alive.collect::<Result<Vec<_>, majordomo::Unreadable>>().map(|alive| json!(alive)))
        }
        Ask::Drain => {
            drain(accounts).await;
            Answer::Done(Value::Null)
        }
        Ask::Sweep => {
            accounts.sweep().await;
            Answer::Done(Value::Null)
        }
        Ask::Shutdown => Answer::Done(json!(accounts.shutdown().await)),
        operation => operate(accounts, operation).await,
    }
}

async fn operate(accounts: &Accounts, ask: Ask) -> Answer {
    match ask {
        Ask::Floor { name } => {
            let tree = accounts.tree().await;
            Answer::Done(json!(tree.subscription(&name).map_or(0, |state| state.floor)))
        }
        Ask::Move { name, to } => {
            let moved = accounts.move_subscription(&name, Start::Seq(to), Actor::System).await;
            told(moved.map(|moved| json!(moved.to)))
        }
        Ask::Rebuild => {
            let started = accounts.rebuild_projection(TALLY, Actor::System).await;
            told(started.map(|started| json!(started.complete)))
        }
        Ask::Letters { name } => {
            let letters = accounts.dead_letters(&name, None, PAGE_LIMIT).await;
            let shown = |letter: &majordomo::DeadLetter| json!([Entry::of(&letter.envelope), letter.attempts]);
            told(letters.map(|letters| json!(letters.iter().map(shown).collect::<Vec<_>>())))
        }
        other => Answer::Failed(format!("{other:?} is no operation")),
    }
}

/// Waits until everything is handled and no projection is being rebuilt.
async fn drain(accounts: &Accounts) {
    loop {
        accounts.drain().await;
        let tree = accounts.tree().await;
        if tree.subscriptions().iter().all(|state| state.rebuild.is_none()) {
            return accounts.drain().await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn told<E: std::fmt::Display>(read: Result<Value, E>) -> Answer {
    read.map_or_else(|error| Answer::Failed(error.to_string()), Answer::Done)
}

async fn users(accounts: &Accounts) -> Result<Value, majordomo::Unreadable> {
    let mut all: Vec<majordomo::User> = Vec::new();
    loop {
        let page = accounts.users(all.last().map(|user| user.id), PAGE_LIMIT).await?;
        if page.is_empty() {
            return Ok(json!(all));
        }
        all.extend(page);
    }
}

/// A flow under way, under the name that the parent gave it.
struct Run<'a> {
    accounts: &'a Accounts,
    id: majordomo::CommandId,
    context: Context,
}

impl Run<'_> {
    async fn ask<F: Asked>(&self, message: F, tell: impl FnOnce(F::Reply) -> Value) -> Answer {
        let command = Command::new(message).id(self.id).context(self.context.clone());
        match self.accounts.ask(command).await {
            Ok(reply) => Answer::Done(tell(reply)),
            Err(Error::Refused(reason)) => Answer::Refused(majordomo::Reason::as_str(&reason).to_owned()),
            Err(error) => Answer::Failed(error.as_str().to_owned()),
        }
    }

    async fn run(&self, act: Act) -> Answer {
        let proof = |link: &str| Proof::from_link(link).unwrap();
        match act {
            Act::Register { username, email, password } => {
                let register = Register { username: Some(username), email, ..Register::new(password) };
                self.ask(register, |reply| json!(reply)).await
            }
            Act::LogIn { username, password } => {
                let login = Authenticate { identifier: username, password: Password::new(password) };
                self.ask(login, |reply| json!(reply.token.expose())).await
            }
            Act::LogOut { token } => self.ask(LogOut { token: SessionToken::new(token) }, |reply| json!(reply)).await,
            Act::EndSessions { user } => {
                self.ask(EndSessions { user, which: SessionsToEnd::All }, |reply| json!(reply.count)).await
            }
            Act::ChangePassword { user, current, new } => {
                let (current, new) = (Password::new(current), Password::new(new));
                self.ask(ChangePassword { user, current, new, keep: None }, |reply| json!(reply.sessions_revoked)).await
            }
            Act::Rename { user, display_name } => {
                let update = Update { display_name: Change::Set(display_name), ..Update::new(user) };
                self.ask(update, |reply| json!(reply.version)).await
            }
            Act::ChangeGroups { user, join, leave } => {
                let (join, leave) = ([join].into(), [leave].into());
                self.ask(ChangeGroups { user, join, leave }, |reply| json!(reply.version)).await
            }
            Act::Disable { user } => self.ask(Disable { user }, |reply| json!(reply.version)).await,
            Act::Enable { user } => self.ask(Enable { user }, |reply| json!(reply.version)).await,
            Act::Delete { user } => self.ask(Delete::new(user), |reply| json!(reply.sessions_revoked)).await,
            Act::RequestVerification { user } => {
                let claimant = Claimant::User { user, contact: None };
                self.ask(RequestEmailVerification { claimant }, |reply| json!(reply.challenge)).await
            }
            Act::Confirm { link } => self.ask(ConfirmEmail { proof: proof(&link) }, |reply| json!(reply)).await,
            Act::RequestReset { username } => {
                let request = RequestPasswordReset { identifier: username, channel: Channel::Email };
                self.ask(request, |reply| json!(reply.challenge)).await
            }
            Act::Reset { link, new } => {
                let reset = ResetPassword { proof: proof(&link), new: Password::new(new) };
                self.ask(reset, |reply| json!(reply.sessions_revoked)).await
            }
        }
    }
}
