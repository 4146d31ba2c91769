//! E-mail: a real mail server, with TLS, AUTH, and the moods that mail servers have.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use majordomo::notifier::{
    NotifierSettings, OutgoingMessage, SendError, Smtp, SmtpCredentials, SmtpEncryption, SmtpSettings, Transport,
};
use majordomo::testing::START;
use majordomo::{
    Accounts, Authenticate, Builder, ChangePassword, Channel, Clock, Config, ConfirmEmail, Envelope, Failure,
    HashParameters, Password, Proof, Register, RequestPasswordReset, Signal, SignalKind, UserId,
};
use serde::Deserialize;
use tempfile::TempDir;

use crate::counterpart::{Running, python, script};

const PASSWORD: &str = "nine lanterns over a quiet harbour";
const NEW_PASSWORD: &str = "seventeen purple elephants";
const APP_NAME: &str = "Straße & Söhne";
const BASE_URL: &str = "https://accounts.example.com";
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// The folder of a child of the test that is to be killed, in its environment.
const CHILD_FOLDER: &str = "MAJORDOMO_MAIL_CHILD";

/// Bounds what could otherwise wait for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it takes too long")
}

/// Looks until it is there.
async fn found<T>(look: impl Fn() -> Option<T>) -> T {
    soon(async {
        loop {
            if let Some(it) = look() {
                return it;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// What the server was told of a message, beside the message.
#[derive(Debug, Deserialize)]
struct Told {
    from: String,
    to: Vec<String>,
    options: Vec<String>,
    hello: String,
    port: u16,
    tls: bool,
    login: Option<String>,
}

/// What a mail program finds in a message.
#[derive(Debug, Deserialize)]
struct Read {
    names: Vec<String>,
    headers: std::collections::BTreeMap<String, String>,
    header_defects: Vec<String>,
    from: Vec<(String, String)>,
    to: Vec<(String, String)>,
    date: String,
    #[serde(rename = "type")]
    kind: String,
    parts: Vec<Part>,
    defects: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    charset: String,
    encoding: String,
    text: String,
    defects: Vec<String>,
}

impl Read {
    fn text(&self) -> &str {
        &self.parts[0].text
    }

    fn message_id(&self) -> &str {
        &self.headers["message-id"]
    }

    fn link(&self) -> &str {
        self.text().lines().map(str::trim).find(|line| line.starts_with(BASE_URL)).unwrap()
    }
}

#[derive(Deserialize)]
struct Listening {
    port: u16,
    root: PathBuf,
}

/// The mail server, with a folder of its own. It is stopped when this is dropped.
struct MailServer {
    _program: Running,
    folder: PathBuf,
    port: u16,
    root: PathBuf,
}

impl MailServer {
    fn start(folder: &Path, options: &[&str]) -> Self {
        Self::of_make("mail_server.py", folder, options)
    }

    fn of_make(make: &str, folder: &Path, options: &[&str]) -> Self {
        let mut command = python();
        let mut program = Running::start(command.arg(script(make)).arg(folder).args(options));
        let Listening { port, root } = serde_json::from_str(&program.line()).unwrap();
        Self { _program: program, folder: folder.to_owned(), port, root }
    }

    /// How to reach it, with its own authority trusted.
    fn settings(&self, encryption: SmtpEncryption) -> SmtpSettings {
        SmtpSettings {
            port: Some(self.port),
            encryption,
            root_certificates: Some(std::fs::read_to_string(&self.root).unwrap()),
            ..SmtpSettings::new("localhost")
        }
    }

    fn plain(&self) -> Smtp {
        Smtp::new(self.settings(SmtpEncryption::Plain)).unwrap()
    }

    fn taken(&self) -> Vec<PathBuf> {
        taken(&self.folder)
    }

    fn read(&self) -> Vec<(Told, Read)> {
        self.taken().iter().map(|file| read(file)).collect()
    }

    fn message_ids(&self) -> Vec<String> {
        self.read().iter().map(|(_, read)| read.message_id().to_owned()).collect()
    }
}

/// The messages that a server has taken, in their order.
fn taken(folder: &Path) -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<usize>().unwrap();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "eml")).collect();
    files.sort_by_key(number);
    files
}

fn read(file: &Path) -> (Told, Read) {
    let output = python().arg(script("read_mail.py")).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = std::fs::read(file.with_extension("json")).unwrap();
    (serde_json::from_slice(&told).unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Keeps the messages themselves, which only a notifier makes.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<OutgoingMessage>>>);

impl Transport for Kept {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        self.0.lock().unwrap().push(message.clone());
        Ok(())
    }
}

fn builder(clock: &Clock) -> Builder {
    let configure = |config: &mut Config| {
        config.hashing.parameters = HashParameters::cheap_for_tests();
        config.messages = Some(NotifierSettings::new(APP_NAME, BASE_URL));
    };
    Accounts::builder().clock(clock.clone()).configure(configure)
}

async fn register(accounts: &Accounts, email: &str) -> UserId {
    let request = Register { email: Some(email.to_owned()), ..Register::new(PASSWORD) };
    soon(accounts.register(request)).await.unwrap().user
}

/// A message as a notifier makes it, to this address.
async fn message_to(address: &str) -> OutgoingMessage {
    let kept = Kept::default();
    let accounts = soon(builder(&Clock::manual(START)).in_memory().transport(kept.clone()).spawn()).await.unwrap();
    register(&accounts, "ada@example.com").await;
    soon(accounts.drain()).await;
    assert!(soon(accounts.shutdown()).await);
    let mut message = kept.0.lock().unwrap().remove(0);
    address.clone_into(&mut message.to);
    message
}

async fn log(accounts: &Accounts) -> Vec<Envelope> {
    soon(accounts.signals(0, 10_000)).await.unwrap()
}

/// How the deliveries ended, in order.
fn ends(log: &[Envelope]) -> Vec<SignalKind> {
    let kinds = [
        SignalKind::UserEmailVerificationInitiated,
        SignalKind::UserEmailVerificationFailed,
        SignalKind::PasswordResetRequestProcessed,
        SignalKind::PasswordResetRequestFailed,
        SignalKind::NotificationFailed,
    ];
    log.iter().map(|envelope| envelope.signal.kind()).filter(|kind| kinds.contains(kind)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_goes_over_tls_with_a_login_and_its_link_works() {
    for (tls, auth, encryption) in [
        ("starttls", "plain", SmtpEncryption::StartTls),
        ("implicit", "plain", SmtpEncryption::ImplicitTls),
        ("starttls", "login", SmtpEncryption::StartTls),
        ("implicit", "login", SmtpEncryption::ImplicitTls),
    ] {
        let folder = folder();
        let server = MailServer::start(folder.path(), &["--tls", tls, "--auth", auth]);
        let credentials = SmtpCredentials::new("accounts@example.com", "a password, of a mail server");
        let smtp = Smtp::new(server.settings(encryption)).unwrap().with_credentials(credentials).unwrap();
        let accounts = soon(builder(&Clock::manual(START)).in_memory().transport(smtp).spawn()).await.unwrap();
        let ada = register(&accounts, "Ada.Lovelace@Example.org").await;
        soon(accounts.drain()).await;

        let [(told, mail)] = <[_; 1]>::try_from(server.read()).unwrap();
        assert!(told.tls, "{tls}");
        assert_eq!(told.login.as_deref(), Some("accounts@example.com"), "{tls} {auth}");
        assert_eq!(
            (told.from.as_str(), told.hello.as_str()),
            ("no-reply@accounts.example.com", "accounts.example.com")
        );
        assert_eq!((told.to, told.options), (vec!["Ada.Lovelace@example.org".to_owned()], Vec::<String>::new()));
        assert_as_a_mail_program_has_it(&mail);

        let due = log(&accounts).await.into_iter().find(|envelope| envelope.signal.kind() == SignalKind::VerifyEmail);
        assert_eq!(mail.message_id(), format!("<{}@accounts.example.com>", due.unwrap().id));
        assert_eq!(ends(&log(&accounts).await), [SignalKind::UserEmailVerificationInitiated]);
        let proof = Proof::from_link(mail.link()).unwrap();
        assert_eq!(soon(accounts.confirm_email(ConfirmEmail { proof })).await.unwrap().user, ada);
        assert!(soon(accounts.shutdown()).await);
    }
}

/// Headers once each, both parts in UTF-8, and nothing that the parser had to forgive.
fn assert_as_a_mail_program_has_it(mail: &Read) {
    let expected = ["from", "to", "subject", "date", "message-id", "auto-submitted", "mime-version", "content-type"];
    assert_eq!(mail.names, expected);
    assert_eq!(mail.from, [(APP_NAME.to_owned(), "no-reply@accounts.example.com".to_owned())]);
    assert_eq!(mail.to, [(String::new(), "Ada.Lovelace@example.org".to_owned())]);
    assert!(mail.headers["subject"].contains(APP_NAME), "{:?}", mail.headers);
    assert_eq!(mail.headers["auto-submitted"], "auto-generated");
    assert!(START.to_string().starts_with(mail.date.trim_end_matches("+00:00")), "{} {START}", mail.date);
    assert_eq!(mail.kind, "multipart/alternative");
    let kinds: Vec<_> = mail.parts.iter().map(|part| (part.kind.as_str(), part.charset.as_str())).collect();
    assert_eq!(kinds, [("text/plain", "utf-8"), ("text/html", "utf-8")]);
    assert!(mail.parts.iter().all(|part| ["7bit", "base64"].contains(&part.encoding.as_str())));
    assert!(mail.text().contains(APP_NAME) && mail.parts[1].text.contains("Straße &amp; Söhne"));
    assert!(mail.parts[1].text.contains(mail.link()));
    let defects = mail.parts.iter().flat_map(|part| &part.defects);
    assert_eq!(mail.defects.iter().chain(&mail.header_defects).chain(defects).count(), 0, "{mail:?}");
}

#[tokio::test]
async fn a_server_of_another_make_that_takes_ascii_only_has_it_too() {
    let message = message_to("ada@example.org").await;
    for (tls, encryption) in [("starttls", SmtpEncryption::StartTls), ("implicit", SmtpEncryption::ImplicitTls)] {
        let folder = folder();
        let server = MailServer::of_make("other_mail_server.py", folder.path(), &[tls]);
        let credentials = SmtpCredentials::new("accounts@example.com", "a password, of a mail server");
        let open = || Smtp::new(server.settings(encryption)).unwrap();
        let smtp = open().with_credentials(credentials).unwrap();
        soon(smtp.send(&message)).await.unwrap();
        let mut refused = message.clone();
        "refused@example.org".clone_into(&mut refused.to);
        let error = soon(smtp.send(&refused)).await.unwrap_err();
        assert_eq!(error, SendError::Permanent("the server answered 550 at RCPT".into()));
        soon(smtp.send(&message)).await.unwrap();
        let stranger = soon(open().send(&message)).await.unwrap_err();
        assert_eq!(stranger, SendError::unavailable("the server answered 550 at MAIL"));
        let mails = server.read();
        assert_eq!(mails.len(), 2);
        for (told, mail) in mails {
            assert!(told.tls);
            assert_eq!(
                (told.to[0].as_str(), mail.message_id()),
                (message.to.as_str(), server.message_ids()[0].as_str())
            );
            assert!(mail.text().contains(APP_NAME));
        }
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let folder = folder();
    let server = MailServer::start(folder.path(), &["--tls", "starttls"]);
    let smtp = Smtp::new(server.settings(SmtpEncryption::StartTls)).unwrap();
    let message = message_to("ada@example.com").await;
    for _ in 0..3 {
        soon(smtp.send(&message)).await.unwrap();
    }
    let ports: Vec<_> = server.read().iter().map(|(told, _)| told.port).collect();
    assert_eq!((ports.len(), ports[0] == ports[1] && ports[1] == ports[2]), (3, true), "{ports:?}");
}

#[tokio::test]
async fn whoever_is_not_who_they_should_be_gets_nothing() {
    let message = message_to("ada@example.com").await;
    for (tls, encryption) in [("starttls", SmtpEncryption::StartTls), ("implicit", SmtpEncryption::ImplicitTls)] {
        let folder = folder();
        let server = MailServer::start(folder.path(), &["--tls", tls]);
        let good = server.settings(encryption);
        let stranger = SmtpSettings { root_certificates: None, ..good.clone() };
        let elsewhere = SmtpSettings { host: "127.0.0.2".into(), ..good.clone() };
        for settings in [stranger, elsewhere] {
            let error = soon(Smtp::new(settings).unwrap().send(&message)).await.unwrap_err();
            assert!(error.is_unavailable(), "{error}");
        }
        assert!(server.taken().is_empty());
        soon(Smtp::new(good).unwrap().send(&message)).await.unwrap();
        assert_eq!(server.taken().len(), 1);
    }
}

#[tokio::test]
async fn a_server_without_starttls_gets_nothing() {
    let folder = folder();
    let server = MailServer::start(folder.path(), &["--tls", "none"]);
    let message = message_to("ada@example.com").await;
    for encryption in [SmtpEncryption::StartTls, SmtpEncryption::ImplicitTls] {
        let smtp = Smtp::new(server.settings(encryption)).unwrap();
        let error = soon(smtp.send(&message)).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
    }
    assert!(server.taken().is_empty());
    soon(server.plain().send(&message)).await.unwrap();
    assert_eq!(server.taken().len(), 1);
}

/// Whoever is on the way answers before TLS begins; what comes after it must not be taken for the server's word.
#[tokio::test]
async fn answers_from_before_tls_are_not_believed() {
    let folder = folder();
    let server = MailServer::start(folder.path(), &["--tls", "starttls", "--injects"]);
    let message = message_to("ada@example.com").await;
    let smtp = || Smtp::new(server.settings(SmtpEncryption::StartTls)).unwrap();
    let credentials = SmtpCredentials::new("accounts@example.com", "a password, of a mail server");
    // From then on each answer is that to the question before.
    for (smtp, reason) in [
        (smtp(), "250 is no answer at DATA"),
        (smtp().with_credentials(credentials).unwrap(), "250 is no answer at the opening"),
    ] {
        assert_eq!(soon(smtp.send(&message)).await, Err(SendError::unavailable(reason)));
    }
    assert!(server.taken().is_empty());
}

#[tokio::test]
async fn wrong_credentials_are_the_transport_s_fault() {
    let folder = folder();
    let server = MailServer::start(folder.path(), &["--tls", "implicit", "--auth", "plain"]);
    let settings = server.settings(SmtpEncryption::ImplicitTls);
    let message = message_to("ada@example.com").await;
    let wrong = SmtpCredentials::new("accounts@example.com", "canary password");
    let smtp = Smtp::new(settings.clone()).unwrap().with_credentials(wrong).unwrap();
    let error = soon(smtp.send(&message)).await.unwrap_err();
    assert_eq!(error, SendError::unavailable("the server answered 535 5.7.8 at the opening"));
    // Without any, the server takes no sender.
    let error = soon(Smtp::new(settings).unwrap().send(&message)).await.unwrap_err();
    assert_eq!(error, SendError::unavailable("the server answered 530 5.7.0 at MAIL"));
    assert!(server.taken().is_empty());
}

#[tokio::test]
async fn each_mood_of_a_server_has_its_class() {
    let folder = folder();
    let server = MailServer::start(folder.path(), &["--tls", "starttls"]);
    let short = Duration::from_millis(500);
    let settings = SmtpSettings { command_timeout: short, ..server.settings(SmtpEncryption::StartTls) };
    let smtp = Smtp::new(settings).unwrap();
    let mut message = message_to("ada@example.com").await;
    for (recipient, first, second) in [
        ("refused@example.org", "permanent", "permanent"),
        ("greylisted@example.org", "transient", "sent"),
        ("closing@example.org", "unavailable", "unavailable"),
        ("stuck@example.org", "unavailable", "unavailable"),
        ("cut@example.org", "transient", "sent"),
        ("lost@example.org", "transient", "sent"),
        ("spam@example.org", "permanent", "permanent"),
        ("ada@example.org", "sent", "sent"),
    ] {
        recipient.clone_into(&mut message.to);
        for expected in [first, second] {
            let sent = soon(smtp.send(&message)).await;
            let class = sent.as_ref().map_or_else(SendError::as_str, |()| "sent");
            assert_eq!(class, expected, "{recipient}: {sent:?}");
            assert!(!sent.is_err_and(|error| error.to_string().contains("example.org")));
        }
    }
    let to: Vec<_> =
        server.read().into_iter().map(|(told, _)| told.to[0].split('@').next().unwrap().to_owned()).collect();
    assert_eq!(to, ["greylisted", "cut", "lost", "lost", "ada", "ada"]);
    let ids = server.message_ids();
    assert!(ids.iter().all(|id| *id == ids[0]), "a second copy can be told by its Message-ID: {ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_puts_off_arrives_and_what_it_refuses_is_told() {
    let folder = folder();
    let server = MailServer::start(folder.path(), &[]);
    let clock = Clock::manual(START);
    let accounts = soon(builder(&clock).in_memory().transport(server.plain()).spawn()).await.unwrap();
    for address in ["greylisted@example.org", "lost@example.org", "cut@example.org", "refused@example.org"] {
        register(&accounts, address).await;
    }
    drained(&accounts, &clock).await;
    let mut told = ends(&log(&accounts).await);
    told.sort_by_key(|kind| kind.as_str());
    let (sent, failed) = (SignalKind::UserEmailVerificationInitiated, SignalKind::UserEmailVerificationFailed);
    assert_eq!(told, [failed, sent, sent, sent]);
    assert!(log(&accounts).await.iter().any(|envelope| matches!(
        envelope.signal,
        Signal::UserEmailVerificationFailed { reason: Failure::EmailSendFailed, .. }
    )));
    let mut mails = server.read();
    mails.sort_by_key(|(told, _)| told.to.clone());
    let to: Vec<_> = mails.iter().map(|(told, _)| told.to[0].as_str()).collect();
    assert_eq!(to, ["cut@example.org", "greylisted@example.org", "lost@example.org", "lost@example.org"]);
    assert_eq!(mails[2].1.message_id(), mails[3].1.message_id());
    assert!(soon(accounts.shutdown()).await);
}

/// Lets time pass until nothing waits any more. What was put off rests by the clock, which is looked at when something
/// is committed, such as a login that fails.
async fn drained(accounts: &Accounts, clock: &Clock) {
    soon(async {
        while tokio::time::timeout(Duration::from_millis(100), accounts.drain()).await.is_err() {
            clock.advance(Duration::from_secs(60));
            assert!(!sign_in(accounts, "nobody@example.com", PASSWORD).await);
        }
    })
    .await;
}

async fn sign_in(accounts: &Accounts, email: &str, password: &str) -> bool {
    let request = Authenticate { identifier: email.to_owned(), password: Password::new(password) };
    soon(accounts.authenticate(request)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_for_three_days_loses_nothing_and_delays_no_login() {
    let folder = folder();
    let server = MailServer::start(folder.path(), &[]);
    let (clock, port, smtp) = (Clock::manual(START), server.port.to_string(), server.plain());
    let patient = |config: &mut Config| config.messages.as_mut().unwrap().give_up_after = 7 * DAY;
    let accounts = soon(builder(&clock).configure(patient).in_memory().transport(smtp).spawn()).await.unwrap();
    let ada = register(&accounts, "ada@example.com").await;
    soon(accounts.drain()).await;
    let proof = Proof::from_link(server.read()[0].1.link()).unwrap();
    soon(accounts.confirm_email(ConfirmEmail { proof })).await.unwrap();
    drop(server);

    let (current, new) = (Password::new(PASSWORD), Password::new(NEW_PASSWORD));
    soon(accounts.change_password(ChangePassword { user: ada, current, new, keep: None })).await.unwrap();
    register(&accounts, "eve@example.com").await;
    let identifier = "ada@example.com".to_owned();
    soon(accounts.request_password_reset(RequestPasswordReset { identifier, channel: Channel::Email })).await.unwrap();
    for _ in 0..3 {
        assert!(sign_in(&accounts, "ada@example.com", NEW_PASSWORD).await);
        clock.advance(DAY);
        assert!(sign_in(&accounts, "ada@example.com", NEW_PASSWORD).await);
    }
    register(&accounts, "bob@example.com").await;
    assert_eq!(taken(folder.path()).len(), 1);

    let server = MailServer::start(folder.path(), &["--port", &port]);
    // What is put off rests by the clock, and so does not count as waiting.
    soon(async {
        while taken(folder.path()).len() < 3 || ends(&log(&accounts).await).len() < 4 {
            clock.advance(Duration::from_secs(60));
            assert!(!sign_in(&accounts, "nobody@example.com", PASSWORD).await);
            accounts.drain().await;
        }
    })
    .await;
    let mails = server.read();
    let mut sent: Vec<_> = mails[1..].iter().map(|(told, _)| told.to[0].as_str()).collect();
    sent.sort_unstable();
    // The notice and what is still of use; the links to eve and for the reset were over.
    assert_eq!(sent, ["ada@example.com", "bob@example.com"]);
    let mut told = ends(&log(&accounts).await);
    told.sort_by_key(|kind| kind.as_str());
    let expected = [
        SignalKind::PasswordResetRequestFailed,
        SignalKind::UserEmailVerificationFailed,
        SignalKind::UserEmailVerificationInitiated,
        SignalKind::UserEmailVerificationInitiated,
    ];
    assert_eq!(told, expected);
    assert!(soon(accounts.shutdown()).await);
}

/// The system over a file, as the child and whoever comes after it run it.
async fn over_a_file(folder: &Path) -> Accounts {
    let port: u16 = std::fs::read_to_string(folder.join("port")).unwrap().parse().unwrap();
    let encryption = SmtpEncryption::Plain;
    let smtp = Smtp::new(SmtpSettings { port: Some(port), encryption, ..SmtpSettings::new("localhost") }).unwrap();
    soon(builder(&Clock::manual(START)).file(folder.join("accounts.redb")).transport(smtp).spawn()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child of the next test, which kills it"]
async fn child_that_is_killed_before_its_mail_is_answered() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let accounts = over_a_file(Path::new(&folder)).await;
    register(&accounts, "held@example.org").await;
    soon(accounts.drain()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_acceptance_and_answer_leads_to_one_duplicate_with_the_same_message_id() {
    let folder = folder();
    let server = MailServer::start(folder.path(), &[]);
    std::fs::write(folder.path().join("port"), server.port.to_string()).unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "mail::child_that_is_killed_before_its_mail_is_answered"]);
    let mut child = Running::start(command.env(CHILD_FOLDER, folder.path()));
    found(|| (server.taken().len() == 1).then_some(())).await;
    child.kill();

    let accounts = over_a_file(folder.path()).await;
    soon(accounts.drain()).await;
    let ids = server.message_ids();
    assert!(ids.len() == 2 && ids[0] == ids[1], "{ids:?}");
    assert_eq!(ends(&log(&accounts).await), [SignalKind::UserEmailVerificationInitiated]);
    let proof = Proof::from_link(server.read()[0].1.link()).unwrap();
    soon(accounts.confirm_email(ConfirmEmail { proof })).await.unwrap();
    assert!(soon(accounts.shutdown()).await);
}
