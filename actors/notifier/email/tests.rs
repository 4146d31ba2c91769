//! SMTP against a server of the tests' own, which answers as each case says.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::notifier::sample_message;

/// The start of a command, and what it is answered.
type Answer = (&'static str, Option<&'static str>);

/// A mail server on loopback that says what the test wants: it takes everything, but for what the script has.
#[derive(Clone, Default)]
struct Script {
    /// In place of the usual answers; without one the connection is closed.
    answers: Arc<Mutex<Vec<Answer>>>,
    connections: Arc<AtomicUsize>,
    commands: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn answer(self, command: &'static str, answer: Option<&'static str>) -> Self {
        self.answers.lock().unwrap().push((command, answer));
        self
    }

    /// Serves until the process ends; whoever connects has a thread.
    fn serve(&self) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let script = script.clone();
                script.connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || script.attend(stream.unwrap()));
            }
        });
        port
    }

    fn attend(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut command = "greeting".to_owned();
        loop {
            let scripted = self.answers.lock().unwrap().iter().find(|(start, _)| command.starts_with(start)).copied();
            let usual = match command.get(..4) {
                Some("gree") => "220 ready",
                Some("DATA") => "354 go on",
                Some("QUIT") => "221 bye",
                _ => "250 fine",
            };
            let Some(answer) = scripted.map_or(Some(usual), |(_, answer)| answer) else { return };
            if write!(stream, "{answer}\r\n").is_err() {
                return;
            }
            let Some(Ok(line)) = lines.next() else { return };
            command = line;
            if answer.starts_with("354") {
                while command != "." {
                    let Some(Ok(line)) = lines.next() else { return };
                    command = line;
                }
            }
            self.commands.lock().unwrap().push(command.clone());
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn plain(port: u16) -> SmtpSettings {
    let encryption = SmtpEncryption::Plain;
    SmtpSettings { port: Some(port), encryption, ..SmtpSettings::new("127.0.0.1") }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

async fn send(smtp: &Smtp) -> Result<(), SendError> {
    Transport::send(smtp, &sample_message(Channel::Email)).await
}

#[tokio::test]
async fn a_message_says_who_it_is_from_and_to_and_the_connection_is_used_again() {
    let script = Script::default();
    let smtp = Smtp::new(plain(script.serve())).unwrap();
    for _ in 0..3 {
        send(&smtp).await.unwrap();
    }
    assert_eq!(script.connections(), 1);
    let commands = script.commands.lock().unwrap().clone();
    let expected =
        ["EHLO example.com", "MAIL FROM:<no-reply@example.com>", "RCPT TO:<Alice@example.org>", "DATA", ".", "MAIL"];
    assert!(commands.iter().zip(expected).all(|(said, expected)| said.starts_with(expected)), "{commands:?}");
    assert_eq!(commands.len(), 1 + 3 * 4);
}

#[tokio::test]
async fn a_connection_serves_so_many_messages_and_no_more_are_kept_than_told() {
    let script = Script::default();
    let smtp = Smtp::new(SmtpSettings { messages_per_connection: 2, ..plain(script.serve()) }).unwrap();
    for _ in 0..5 {
        send(&smtp).await.unwrap();
    }
    assert_eq!(script.connections(), 3);

    let script = Script::default();
    let smtp = Smtp::new(SmtpSettings { idle_connections: 0, ..plain(script.serve()) }).unwrap();
    for _ in 0..3 {
        send(&smtp).await.unwrap();
    }
    assert_eq!(script.connections(), 3);
    assert_eq!(script.commands.lock().unwrap().iter().filter(|command| *command == "QUIT").count(), 3);
}

#[tokio::test]
async fn a_connection_is_kept_for_a_while() {
    let script = Script::default();
    let smtp = Smtp::new(plain(script.serve())).unwrap();
    send(&smtp).await.unwrap();
    // Time stands still only here: a server of the real world answers within real time.
    let pass = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    pass(20).await;
    send(&smtp).await.unwrap();
    assert_eq!(script.connections(), 1);
    pass(31).await;
    send(&smtp).await.unwrap();
    assert_eq!(script.connections(), 2);
}

/// A worker that is replaced has a runtime of its own; what the old one left must not hang the new one.
#[test]
fn a_connection_does_not_outlive_its_runtime() {
    let script = Script::default();
    let smtp = Smtp::new(plain(script.serve())).unwrap();
    let first = runtime();
    first.block_on(send(&smtp)).unwrap();
    first.block_on(send(&smtp)).unwrap();
    assert_eq!(script.connections(), 1);
    // The old runtime is still there, and nobody drives it.
    let second = runtime();
    second.block_on(send(&smtp)).unwrap();
    assert_eq!(script.connections(), 2);
    drop(first);
    drop(second);
    let third = runtime();
    third.block_on(send(&smtp)).unwrap();
    third.block_on(send(&smtp)).unwrap();
    assert_eq!(script.connections(), 3);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced_without_a_failure() {
    let script = Script::default();
    let smtp = Smtp::new(plain(script.serve())).unwrap();
    send(&smtp).await.unwrap();
    // From now on the server closes what says MAIL; the new connection finds it mended.
    script.answers.lock().unwrap().push(("MAIL", Some("421 4.4.2 you were silent for too long")));
    let answers = Arc::clone(&script.answers);
    let connections = Arc::clone(&script.connections);
    let mended = thread::spawn(move || {
        while connections.load(Ordering::SeqCst) < 2 {
            thread::yield_now();
        }
        answers.lock().unwrap().clear();
    });
    send(&smtp).await.unwrap();
    mended.join().unwrap();
    assert_eq!(script.connections(), 2);
}

#[tokio::test]
async fn each_refusal_has_its_class_and_no_address_in_it() {
    for (command, answer, class) in [
        ("greeting", Some("554 5.7.1 Alice@example.org"), "unavailable"),
        ("greeting", Some("421 4.3.2 down"), "unavailable"),
        ("greeting", Some("Alice@example.org"), "unavailable"),
        ("greeting", None, "unavailable"),
        ("EHLO", Some("502 5.5.1 what?"), "unavailable"),
        ("MAIL", Some("530 5.7.0 log in first"), "unavailable"),
        ("MAIL", Some("354 out of turn"), "unavailable"),
        ("MAIL", None, "unavailable"),
        ("RCPT", Some("451 4.7.1 <Alice@example.org> greylisted"), "transient"),
        ("RCPT", Some("550 5.1.1 <Alice@example.org> unknown"), "permanent"),
        ("RCPT", Some("550-5.1.1 <Alice@example.org>\r\n550 5.1.1 unknown"), "permanent"),
        ("RCPT", Some("421 4.3.2 down"), "unavailable"),
        ("RCPT", Some("Alice@example.org"), "unavailable"),
        ("RCPT", None, "unavailable"),
        ("DATA", Some("250 2.0.0 out of turn"), "unavailable"),
        ("DATA", None, "unavailable"),
        (".", Some("451 4.3.0 Alice@example.org later"), "transient"),
        (".", Some("554 5.6.0 spam"), "permanent"),
        (".", Some("Alice@example.org"), "transient"),
        (".", None, "transient"),
    ] {
        let script = Script::default().answer(command, answer);
        let smtp = Smtp::new(plain(script.serve())).unwrap();
        let error = send(&smtp).await.unwrap_err();
        assert_eq!(error.as_str(), class, "{command} {answer:?}: {error}");
        assert!(!error.to_string().contains("lice"), "{error}");
        assert!(error.to_string().len() <= 250, "{error}");
        // What it left does not stand in the way of the next message.
        script.answers.lock().unwrap().clear();
        send(&smtp).await.unwrap();
    }
}

#[tokio::test]
async fn where_nobody_listens_the_transport_is_out() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = send(&Smtp::new(plain(port)).unwrap()).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let named = SmtpSettings { host: "localhost".into(), ..plain(Script::default().serve()) };
    send(&Smtp::new(named).unwrap()).await.unwrap();
}

/// The listener's queue takes the connection, and nobody greets.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let smtp = Smtp::new(plain(listener.local_addr().unwrap().port())).unwrap();
    let begun = Instant::now();
    let error = send(&smtp).await.unwrap_err();
    assert_eq!(error, SendError::unavailable("no session in time"));
    assert!(begun.elapsed() <= super::super::SEND_DEADLINE);
}

#[tokio::test]
async fn a_forged_address_reaches_no_server() {
    let script = Script::default();
    let smtp = Smtp::new(plain(script.serve())).unwrap();
    for forged in ["a@b.c\r\nRCPT TO:<d@e.f>", "a@b.c>\r\nDATA", "", "a", "@b.c", "a@", "a@b@c"] {
        let message = OutgoingMessage { to: forged.into(), ..sample_message(Channel::Email) };
        let error = Transport::send(&smtp, &message).await.unwrap_err();
        assert!(!error.is_transient(), "{forged:?}");
    }
    assert_eq!(script.connections(), 0);
}

#[test]
fn credentials_go_over_tls_only_and_are_not_shown() {
    let credentials = || SmtpCredentials::new("canary-user", "canary-password");
    let in_clear = Smtp::new(plain(25)).unwrap().with_credentials(credentials());
    assert_eq!(in_clear.unwrap_err(), SmtpFault::CredentialsInClear);
    let settings = SmtpSettings { root_certificates: Some("-----BEGIN CERTIFICATE-----\nAAAA".into()), ..plain(465) };
    let broken = SmtpSettings { encryption: SmtpEncryption::ImplicitTls, ..settings };
    assert_eq!(Smtp::new(broken).unwrap_err(), SmtpFault::RootCertificates);
    let smtp = Smtp::new(SmtpSettings::new("mail.example.com")).unwrap().with_credentials(credentials()).unwrap();
    assert!(!format!("{smtp:?}").contains("canary"));
    let empty =
        Smtp::new(SmtpSettings::new("mail.example.com")).unwrap().with_credentials(SmtpCredentials::new("", ""));
    assert_eq!(empty.unwrap_err(), SmtpFault::Credentials);
}
