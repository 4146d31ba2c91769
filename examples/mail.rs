//! Sends a real e-mail to a mail server on this machine.
//!
//! Start a mail server that takes everything and prints it, in another terminal:
//!
//! ```text
//! tests/counterparts/setup
//! target/counterparts/venv/bin/python -m aiosmtpd -n -l 127.0.0.1:8025
//! ```
//!
//! then `cargo run --example mail --features email`. `SMTP_PORT=n` takes another port. The server prints the mail, whose
//! link a browser would open; the example ends once the signal says that the server has taken charge of it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it shows something")]

use std::process::ExitCode;
use std::time::Duration;

use majordomo::notifier::{NotifierSettings, Smtp, SmtpEncryption, SmtpSettings};
use majordomo::{Accounts, Envelope, Filter, Outcome, Register, SignalKind, Start, Subscriber, SubscriberContext};
use tokio::sync::mpsc;

const PORT: u16 = 8025;
const PATIENCE: Duration = Duration::from_secs(10);

/// Hands on what became of the mail.
struct Postmark(mpsc::UnboundedSender<Envelope>);

impl Subscriber for Postmark {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        // Nobody listens any more once the example ends.
        let _ = self.0.send(envelope.clone());
        Outcome::done()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match send_a_mail().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the example stopped: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn send_a_mail() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::var("SMTP_PORT").map_or(Ok(PORT), |port| port.parse())?;
    // On this machine without TLS; a provider would be `SmtpSettings::new("mail.example.com")` and credentials.
    let settings =
        SmtpSettings { port: Some(port), encryption: SmtpEncryption::Plain, ..SmtpSettings::new("127.0.0.1") };
    let (tell, mut told) = mpsc::unbounded_channel();
    let ends = Filter::kinds([SignalKind::UserEmailVerificationInitiated, SignalKind::UserEmailVerificationFailed]);
    let accounts = Accounts::builder()
        .in_memory()
        .configure(|config| config.messages = Some(NotifierSettings::new("Example", "https://accounts.example.com")))
        .transport(Smtp::new(settings)?)
        .subscriber("postmark", ends, Start::Beginning, Postmark(tell))
        .spawn()
        .await?;
    let email = Some("ada@example.com".to_owned());
    let request = Register { email, ..Register::new("nine lanterns over a quiet harbour") };
    accounts.register(request).await?;
    println!("registered; the mail is on its way to 127.0.0.1:{port}");
    let end = tokio::time::timeout(PATIENCE, told.recv()).await;
    // It does not wait for a mail that is still tried.
    accounts.shutdown().await;
    match end {
        Ok(Some(envelope)) if envelope.signal.kind() == SignalKind::UserEmailVerificationInitiated => {
            println!("{}: the server has taken charge of the mail", envelope.signal.kind().as_str());
            Ok(())
        }
        Ok(Some(envelope)) => Err(format!("{}: the server refused the mail", envelope.signal.kind().as_str()).into()),
        Ok(None) => Err("nobody said what became of the mail".into()),
        Err(_) => Err(format!(
            "no mail server took the mail within {} s: is one listening on 127.0.0.1:{port}? The file of this example says how to start one",
            PATIENCE.as_secs()
        )
        .into()),
    }
}
