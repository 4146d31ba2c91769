//! Discretion: whether the time of an answer tells who has an account, while a slow mail server is written to.
//!
//! `cargo bench --bench discretion`. `EACH=n` is how many calls there are of each kind, known and unknown in an order that
//! is drawn (2,000), `MAIL=n` how many milliseconds the mail server takes for a message (50). Every call is about an address
//! of its own and comes from a source of its own, so that no limit answers in place of the flow. Hashes cost next to nothing
//! here: that known and unknown cost one hash each is for the tests to show, and a real one would hide what is measured.
//! What is asked right after a request for a reset is timed as well.

#![allow(clippy::print_stdout, reason = "it reports")]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use majordomo::notifier::{NotifierSettings, OutgoingMessage, SendError, Transport};
use majordomo::{
    Accounts, Authenticate, Channel, Claimant, Command, ConfirmEmail, Context, Password, Proof, Register,
    RequestEmailVerification, RequestPasswordReset,
};
use measure::apart::{cropped, kolmogorov_smirnov, welch};
use measure::arrivals::Draws;
use measure::pairs::median;
use measure::report::{Figure, Report};
use measure::{Failure, setting, world};

/// What is commonly taken for a leak.
const AIM: f64 = 4.5;

/// A mail server that takes its time, once it is told to, and keeps the last link to each address.
#[derive(Clone)]
struct MailServer {
    takes: Duration,
    is_slow: Arc<AtomicBool>,
    links: Arc<Mutex<HashMap<String, String>>>,
}

impl MailServer {
    /// What proves this address, by the last link that was sent to it.
    fn proof(&self, address: &str) -> Option<Proof> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(address).and_then(|link| Proof::from_link(link))
    }
}

impl Transport for MailServer {
    fn channel(&self) -> Channel {
        Channel::Email
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        if self.is_slow.load(Ordering::Relaxed) {
            tokio::time::sleep(self.takes).await;
        } else if let Some(link) = message.text.lines().find(|line| line.trim_start().starts_with("https://")) {
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.insert(message.to.clone(), link.trim().to_owned());
        }
        Ok(())
    }
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Login,
    Registration,
    Reset,
    Verification,
}

impl Question {
    const ALL: [Self; 4] = [Self::Login, Self::Registration, Self::Reset, Self::Verification];

    const fn name(self) -> &'static str {
        match self {
            Self::Login => "login with a wrong password",
            Self::Registration => "registration",
            Self::Reset => "request for a reset",
            Self::Verification => "request for a verification",
        }
    }

    /// The address that somebody has proven, or, for a verification that would be sent, claimed. The others are nobody's.
    fn address(self, is_known: bool, number: u64) -> String {
        match (self, is_known) {
            (Self::Verification, true) => claimed(number),
            (_, true) => owned(number),
            (Self::Login, false) => format!("nobody1-{number:06}@example.com"),
            (Self::Registration, false) => format!("nobody2-{number:06}@example.com"),
            (Self::Reset, false) => format!("nobody3-{number:06}@example.com"),
            (Self::Verification, false) => format!("nobody4-{number:06}@example.com"),
        }
    }
}

fn owned(number: u64) -> String {
    format!("owner01-{number:06}@example.com")
}

fn claimed(number: u64) -> String {
    format!("claim01-{number:06}@example.com")
}

/// A request from somewhere else than every other one.
fn from_elsewhere<F>(message: F) -> Command<F> {
    static SOURCES: AtomicU32 = AtomicU32::new(0);
    let number = SOURCES.fetch_add(1, Ordering::Relaxed);
    let source = IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number));
    Command::new(message).context(Context::new().client_ip(source))
}

/// Asks, and tells what it took, in microseconds.
async fn ask(accounts: &Accounts, question: Question, address: String, name: String) -> Result<f64, Failure> {
    let begun = Instant::now();
    match question {
        Question::Login => {
            let login = Authenticate { identifier: address, password: Password::new("not the password of anybody") };
            if accounts.authenticate(from_elsewhere(login)).await.is_ok() {
                return Err("a wrong password was right".into());
            }
        }
        Question::Registration => {
            let request = Register { username: Some(name), email: Some(address), ..Register::new(world::PASSWORD) };
            accounts.register(from_elsewhere(request)).await?;
        }
        Question::Reset => {
            let request = RequestPasswordReset { identifier: address, channel: Channel::Email };
            accounts.request_password_reset(from_elsewhere(request)).await?;
        }
        Question::Verification => {
            let request = RequestEmailVerification { claimant: Claimant::Address(address) };
            accounts.request_email_verification(from_elsewhere(request)).await?;
        }
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6)
}

/// Registers everybody who is known.
async fn populate(accounts: &Accounts, server: &MailServer, each: u64) -> Result<(), Failure> {
    for number in 0..each {
        for (name, email) in [("owner", owned(number)), ("claim", claimed(number))] {
            let request = Register {
                username: Some(format!("{name}{number}")),
                email: Some(email),
                ..Register::new(world::PASSWORD)
            };
            accounts.register(from_elsewhere(request)).await?;
        }
    }
    accounts.drain().await;
    for number in 0..each {
        let proof = server.proof(&owned(number)).ok_or("no link was sent")?;
        accounts.confirm_email(from_elsewhere(ConfirmEmail { proof })).await?;
    }
    accounts.drain().await;
    Ok(())
}

/// The times of known and unknown, and after each of a request about nobody that follows at once.
#[derive(Default)]
struct Times {
    known: Vec<f64>,
    unknown: Vec<f64>,
    after_known: Vec<f64>,
    after_unknown: Vec<f64>,
}

/// Asks about those of these numbers and as often about nobody, in an order that is drawn: what comes before a call says
/// nothing about it.
async fn time(
    accounts: &Accounts,
    question: Question,
    numbers: std::ops::Range<u64>,
    follow: bool,
) -> Result<Times, Failure> {
    let (mut times, mut draws) = (Times::default(), Draws::new(numbers.end));
    let (mut known, mut unknown) = (numbers.clone(), numbers);
    while !known.is_empty() || !unknown.is_empty() {
        let left = [&known, &unknown].map(|numbers| numbers.end - numbers.start);
        let is_known = draws.below(left.iter().sum()) < left[0];
        let Some(number) = (if is_known { &mut known } else { &mut unknown }).next() else { continue };
        let address = question.address(is_known, number);
        let took = ask(accounts, question, address, format!("new-{number}-{is_known}")).await?;
        let after = if follow {
            let nobody = format!("nobody5-{number:06}-{is_known}@example.com");
            Some(ask(accounts, Question::Reset, nobody, String::new()).await?)
        } else {
            None
        };
        let Times { known, unknown, after_known, after_unknown } = &mut times;
        let (lot, lot_after) = if is_known { (known, after_known) } else { (unknown, after_unknown) };
        lot.push(took);
        lot_after.extend(after);
        // What the call before left to do is done, or at the mail server.
        tokio::time::sleep(Duration::from_micros(500 + draws.below(1_000))).await;
    }
    accounts.drain().await;
    Ok(times)
}

fn tell(report: &mut Report, name: &str, known: &[f64], unknown: &[f64], has_aim: bool) {
    let (gap, likely) = kolmogorov_smirnov(known, unknown);
    let (few, of_unknown) = cropped(known, unknown, 0.95);
    for (what, t) in [("t", welch(known, unknown)), ("t without the slowest 5 %", welch(&few, &of_unknown))] {
        let figure = Figure::new(format!("{name}: Welch's {what}, size"), t.abs(), "");
        report.add(if has_aim { figure.at_most(AIM) } else { figure });
    }
    report.add(Figure::new(format!("{name}: Kolmogorov-Smirnov D"), gap, ""));
    report.add(Figure::new(format!("{name}: its p"), likely, ""));
    report.add(Figure::new(format!("{name}: median, known"), median(known), "us"));
    report.add(Figure::new(format!("{name}: median, unknown"), median(unknown), "us"));
    report.add(Figure::new(format!("{name}: known / unknown"), median(known) / median(unknown), "x"));
}

async fn run() -> Result<(), Failure> {
    let each = setting("EACH", 2_000, 40)?;
    let takes = Duration::from_millis(setting("MAIL", 50, 5)?);
    let folder = tempfile::tempdir()?;
    let server = MailServer { takes, is_slow: Arc::default(), links: Arc::default() };
    let mut config = world::without_hashing();
    config.messages = Some(NotifierSettings::new("Example", "https://accounts.example.com"));
    let file = folder.path().join("accounts.redb");
    let accounts = Accounts::builder().config(config).file(file).transport(server.clone()).spawn().await?;
    populate(&accounts, &server, 2 * each).await?;
    server.is_slow.store(true, Ordering::Relaxed);
    println!("2 x {each} calls, the mail server takes {takes:?}");
    let mut report = Report::new("discretion");
    for question in Question::ALL {
        let times = time(&accounts, question, 0..each, false).await?;
        tell(&mut report, question.name(), &times.known, &times.unknown, true);
    }
    let times = time(&accounts, Question::Reset, each..2 * each, true).await?;
    tell(&mut report, "what is asked right after a reset", &times.after_known, &times.after_unknown, false);
    if accounts.shutdown().await { report.finish() } else { Err("the system did not shut down".into()) }
}

fn main() -> Result<(), Failure> {
    tokio::runtime::Runtime::new()?.block_on(run())
}
