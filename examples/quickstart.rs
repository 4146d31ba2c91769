//! The main job, start to end, on a real database file with real hashes: `cargo run --example quickstart`.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::panic, reason = "it shows things, and a part is to fail")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use majordomo::notifier::{CapturedMessage, CapturedOutbox, NotifierSettings};
use majordomo::ractor::{Actor, ActorProcessingErr, ActorRef};
use majordomo::{
    Accounts, ActorState, Authenticate, Change, Channel, ConfirmEmail, ConfirmPhone, Delete, Envelope, Filter, Live,
    OneTimeCode, Outcome, Password, Proof, Register, RequestPasswordReset, ResetPassword, SessionToken, Start,
    Subscriber, SubscriberContext, Update, UserId,
};

type Failure = Box<dyn std::error::Error>;

const PASSWORD: &str = "nine lanterns over a quiet harbour";
const NEW_PASSWORD: &str = "seventeen purple elephants";

/// A live subscriber: an actor that prints signals as they arrive.
struct Screen;

impl Actor for Screen {
    type Msg = Live;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _myself: ActorRef<Live>, _arguments: ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _myself: ActorRef<Live>, live: Live, _state: &mut ()) -> Result<(), ActorProcessingErr> {
        let place = live.envelope.seq.map_or("live".to_owned(), |seq| seq.to_string());
        println!("      {place:>5}  {}", live.envelope.signal.kind().as_str());
        Ok(())
    }
}

/// A durable subscriber with a fault: it panics twice on the first signal that it is handed.
struct Clumsy {
    falls: AtomicU32,
}

impl Subscriber for Clumsy {
    async fn handle(&self, _envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        if self.falls.fetch_add(1, Ordering::Relaxed) < 2 {
            panic!("the clumsy subscriber fell over (on purpose)");
        }
        if context.attempt() > 1 {
            println!("      the clumsy subscriber has it at attempt {}", context.attempt());
        }
        Outcome::done()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match quickstart().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the quickstart stopped: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn quickstart() -> Result<(), Failure> {
    let folder = PathBuf::from("majordomo-quickstart");
    std::fs::create_dir_all(&folder)?;
    let messages = CapturedOutbox::new();
    let accounts = Accounts::builder()
        .file(folder.join("accounts.redb"))
        .configure(|config| {
            config.messages = Some(NotifierSettings::new("Quickstart", "https://accounts.example.com"));
        })
        .transport(messages.transport(Channel::Email))
        .transport(messages.transport(Channel::Phone))
        .spawn()
        .await?;
    title("the tree of actors");
    print_tree(&accounts).await;

    let (screen, _) = Actor::spawn(None, Screen, ()).await?;
    accounts.listen(&screen, Filter::all(), 10_000);
    let person = Person::new();
    let user = register_and_verify(&accounts, &messages, &person).await?;
    sign_in_and_mistype(&accounts, &person).await?;
    reset_by_phone(&accounts, &messages, &person).await?;
    a_clumsy_subscriber(&accounts, &person).await?;
    update_and_delete(&accounts, user).await?;

    title("the trail of it");
    let records = accounts.audit(majordomo::AuditQuery { user: Some(user), ..Default::default() }).await?;
    println!("   the auditor holds {} records of this user", records.records.len());
    title("where the data lies");
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        println!("   {:>9} bytes  {}", entry.metadata()?.len(), entry.path().display());
    }
    println!("\n   shut down in time: {}", accounts.shutdown().await);
    Ok(())
}

/// Somebody new at every run, so that it works twice, and after a run that was cut off.
struct Person {
    username: String,
    email: String,
    phone: String,
}

impl Person {
    fn new() -> Self {
        let id = UserId::new().to_string();
        let tail = id.rsplit('-').next().unwrap_or_default();
        let number = u64::from_str_radix(tail, 16).unwrap_or_default() % 1_000_000;
        Self {
            username: format!("ada.{tail}"),
            email: format!("ada.{tail}@example.com"),
            phone: format!("+44 7400 {number:06}"),
        }
    }
}

async fn register_and_verify(
    accounts: &Accounts,
    messages: &CapturedOutbox,
    person: &Person,
) -> Result<UserId, Failure> {
    title("register: the user, the claims and the signals are one commit");
    let request = Register {
        username: Some(person.username.clone()),
        email: Some(person.email.clone()),
        phone: Some(person.phone.clone()),
        ..Register::new(PASSWORD)
    };
    let accepted = accounts.register(request).await?;
    println!("   user {}", accepted.user);
    accounts.drain().await;
    let mail = messages.last_to(&person.email).ok_or("no mail")?;
    show(&mail);

    title("verify the e-mail address by its link, the phone number by its code");
    let link = mail.link().ok_or("no link")?;
    accounts.confirm_email(ConfirmEmail { proof: Proof::from_link(link).ok_or("no proof")? }).await?;
    let text = messages.messages().into_iter().rfind(|message| message.channel == Channel::Phone).ok_or("no text")?;
    show(&text);
    let code = OneTimeCode::new(text.code().ok_or("no code")?);
    let challenge = accepted.phone_challenge.ok_or("no challenge")?;
    accounts.confirm_phone(ConfirmPhone { proof: Proof::Code { challenge, code } }).await?;
    accounts.drain().await;
    Ok(accepted.user)
}

async fn sign_in(accounts: &Accounts, identifier: &str, password: &str) -> Result<SessionToken, Failure> {
    let login = Authenticate { identifier: identifier.to_owned(), password: Password::new(password) };
    Ok(accounts.authenticate(login).await?.token)
}

async fn sign_in_and_mistype(accounts: &Accounts, person: &Person) -> Result<(), Failure> {
    title("sign in by username, then mistype");
    let token = sign_in(accounts, &person.username, PASSWORD).await?;
    let alive = accounts.check_session(&token)?.is_some();
    println!("   the session is alive: {alive}");
    match sign_in(accounts, &person.email, "nine lantrens over a quiet harbour").await {
        Ok(_) => return Err("a wrong password was accepted".into()),
        Err(error) => println!("   refused: {error}"),
    }
    accounts.drain().await;
    Ok(())
}

async fn reset_by_phone(accounts: &Accounts, messages: &CapturedOutbox, person: &Person) -> Result<(), Failure> {
    title("reset the password by a code to the phone");
    let request = RequestPasswordReset { identifier: person.username.clone(), channel: Channel::Phone };
    let requested = accounts.request_password_reset(request).await?;
    accounts.drain().await;
    let text = messages.messages().into_iter().rfind(|message| message.channel == Channel::Phone).ok_or("no text")?;
    show(&text);
    let code = OneTimeCode::new(text.code().ok_or("no code")?);
    let proof = Proof::Code { challenge: requested.challenge, code };
    let replaced = accounts.reset_password(ResetPassword { proof, new: Password::new(NEW_PASSWORD) }).await?;
    println!("   sessions that ended with it: {}", replaced.sessions_revoked);
    accounts.drain().await;
    Ok(())
}

async fn a_clumsy_subscriber(accounts: &Accounts, person: &Person) -> Result<(), Failure> {
    title("a subscriber panics while logins go on");
    std::panic::set_hook(Box::new(|panic| println!("      panic: {}", panic.payload_as_str().unwrap_or("?"))));
    accounts.subscribe("clumsy", Filter::all(), Start::Now, Clumsy { falls: AtomicU32::new(0) }).await?;
    for _ in 0..3 {
        sign_in(accounts, &person.username, NEW_PASSWORD).await?;
        println!("   signed in");
    }
    accounts.drain().await;
    let _ = std::panic::take_hook();
    Ok(())
}

async fn update_and_delete(accounts: &Accounts, user: UserId) -> Result<(), Failure> {
    title("update, then delete");
    let update = Update { display_name: Change::Set("Ada".to_owned()), ..Update::new(user) };
    println!("   now at version {}", accounts.update(update).await?.version);
    let deleted = accounts.delete(Delete::new(user)).await?;
    println!("   deleted, with {} sessions", deleted.sessions_revoked);
    accounts.drain().await;
    println!("   the user is gone: {}", accounts.user(user)?.is_none());
    Ok(())
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn show(message: &CapturedMessage) {
    println!("   +-- to {}: {}", message.to, message.subject.as_deref().unwrap_or("a text message"));
    for line in message.text.lines() {
        println!("   |   {line}");
    }
}

async fn print_tree(accounts: &Accounts) {
    let tree = accounts.tree().await;
    println!("   system {}", tree.system);
    print_actor(&tree.root, 0);
}

fn print_actor(actor: &ActorState, depth: usize) {
    println!("   {}+-- {} ({:?})", "|   ".repeat(depth), actor.name, actor.status);
    for child in &actor.children {
        print_actor(child, depth + 1);
    }
}
