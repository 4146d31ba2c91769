//! Makes an audit trail, and writes what an outsider needs to verify it: an export, the public keys, a held head.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it shows something")]

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use majordomo::{Accounts, AuditRange, Authenticate, Command, Context, Delete, Password, Register};

const PASSWORD: &str = "nine lanterns over a quiet harbour";
const FOLDER: &str = "majordomo-audit";

#[tokio::main]
async fn main() -> ExitCode {
    match make_and_export().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the example stopped: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn make_and_export() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(FOLDER);
    std::fs::create_dir_all(folder)?;
    let accounts =
        Accounts::builder().in_memory().configure(|config| config.audit_checkpoint_every = 8).spawn().await?;
    let context = Context::new().client_ip([192, 0, 2, 7].into()).user_agent("example");
    for name in ["ada", "eve"] {
        let request = Register { username: Some(name.to_owned()), ..Register::new(PASSWORD) };
        let user = accounts.register(Command::new(request).context(context.clone())).await?.user;
        let request = Authenticate { identifier: name.to_owned(), password: Password::new(PASSWORD) };
        accounts.authenticate(Command::new(request).context(context.clone())).await?;
        if name == "eve" {
            accounts.delete(Delete::new(user)).await?;
        }
    }
    accounts.drain().await;

    // The keys and heads are to be kept where nobody who runs the system can write.
    std::fs::write(folder.join("keys.json"), serde_json::to_string(&accounts.audit_keys())?)?;
    std::fs::write(folder.join("held.json"), serde_json::to_string(&accounts.audit_head().await?)?)?;
    let (_, head) = accounts.export_audit(AuditRange::default(), File::create(folder.join("trail.jsonl"))?).await?;
    println!("exported {} links, up to place {} of the log, to {FOLDER}/; now run:", head.number, head.seq);
    println!("cargo run --example verify_audit -- {FOLDER}/trail.jsonl {FOLDER}/keys.json {FOLDER}/held.json");
    accounts.shutdown().await;
    Ok(())
}
