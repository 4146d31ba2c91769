//! A subscriber of one's own that counts logins exactly once, across restarts: run it twice.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it shows something")]

use std::path::PathBuf;
use std::process::ExitCode;

use majordomo::{
    Accounts, Authenticate, Effect, Envelope, Error, Filter, Outcome, Password, Register, RegisterReason, SignalKind,
    Start, Subscriber, SubscriberContext,
};

const PASSWORD: &str = "nine lanterns over a quiet harbour";
const COUNT: &[u8] = b"logins";

/// Counts logins in its own projection, which is committed together with its cursor.
struct LoginCounter;

impl Subscriber for LoginCounter {
    async fn handle(&self, _envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        match context.projection(COUNT) {
            Ok(stored) => {
                let value = (count(stored.as_deref()) + 1).to_be_bytes().to_vec();
                Outcome::Done(vec![Effect::Project { key: COUNT.to_vec(), value }])
            }
            Err(out) => Outcome::retry(out.to_string()),
        }
    }
}

fn count(stored: Option<&[u8]>) -> u64 {
    stored.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

#[tokio::main]
async fn main() -> ExitCode {
    match count_logins().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the example stopped: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn count_logins() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from("majordomo-quickstart");
    std::fs::create_dir_all(&folder)?;
    let logins = Filter::kinds([SignalKind::UserAuthenticated]);
    let accounts = Accounts::builder()
        .file(folder.join("counted.redb"))
        .subscriber("login_counter", logins, Start::Beginning, LoginCounter)
        .spawn()
        .await?;
    // What an earlier run was cut off at is caught up with first.
    accounts.drain().await;
    let before = count(accounts.projection("login_counter", COUNT)?.as_deref());

    match accounts.register(Register { username: Some("ada".into()), ..Register::new(PASSWORD) }).await {
        Ok(_) => println!("registered"),
        Err(Error::Refused(RegisterReason::UsernameTaken)) => println!("registered at an earlier run"),
        Err(error) => return Err(error.into()),
    }
    for _ in 0..3 {
        accounts.authenticate(Authenticate { identifier: "ada".into(), password: Password::new(PASSWORD) }).await?;
    }
    accounts.drain().await;
    let after = count(accounts.projection("login_counter", COUNT)?.as_deref());
    println!("logins counted: {before} before, {after} now");
    if after != before + 3 {
        return Err("a login was missed, or counted twice".into());
    }
    accounts.shutdown().await;
    Ok(())
}
