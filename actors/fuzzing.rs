//! Fuzzing: bytes that anybody may send, or that a file may hold, fed to what reads them; each target says what holds.

use std::fmt::Debug;

use majordomo_model::{
    Email, Identifier, InvalidIdentifier, Phone, Timestamp, TokenId, TokenPurpose, UserId, Username,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auditor::{AuditPublicKey, AuditVerifier};
use crate::hasher;
use crate::keys::Keyring;
use crate::session_secret;
use crate::storage;
use crate::token::{Binding, TokenClaims, Tokens, parse_link, parse_user_segment};

/// What does not hold.
pub type Fault = &'static str;

/// A name, and what is fed with bytes.
///
/// # Errors
/// What does not hold. A panic is a fault as well.
pub type Target = (&'static str, fn(&[u8]) -> Result<(), Fault>);

/// Every target.
pub const TARGETS: [Target; 6] = [
    ("token", token),
    ("code", code),
    ("identifier", identifier),
    ("row", row),
    ("envelope", envelope),
    ("phc_string", phc_string),
];

/// Links and what else may stand in a path: only what is spelled as we spell it is read, and nobody's secret fits.
///
/// # Errors
/// What does not hold.
pub fn token(data: &[u8]) -> Result<(), Fault> {
    let text = String::from_utf8_lossy(data);
    let tokens = Tokens::new(Keyring::ephemeral().map_err(|_| "no keys")?);
    if let Some((id, presented)) = parse_link(&text) {
        let claims = claims(id, &tokens);
        hold(text.is_ascii(), "a link is ASCII")?;
        hold(!tokens.verify_link(&claims, &presented), "a link that nobody made fits")?;
    }
    if let Some(user) = parse_user_segment(&text) {
        let path = tokens.path(&TokenClaims { user: Some(user), ..claims(TokenId::from_bytes([0; 16]), &tokens) });
        let is_in = path.is_some_and(|path| path.split('/').any(|segment| segment == text));
        hold(is_in, "a user's segment is spelled otherwise in the path of that user")?;
    }
    let _ = session_secret::hash(&text);
    Ok(())
}

/// Codes: the right one fits, and nothing else.
///
/// # Errors
/// What does not hold.
pub fn code(data: &[u8]) -> Result<(), Fault> {
    let text = String::from_utf8_lossy(data);
    let tokens = Tokens::new(Keyring::ephemeral().map_err(|_| "no keys")?);
    let claims = claims(TokenId::from_bytes([7; 16]), &tokens);
    let code = tokens.code(&claims).ok_or("a reset has a code")?;
    hold(tokens.verify_code(&claims, &code), "the right code does not fit")?;
    hold(tokens.verify_code(&claims, &text) == (text == *code), "another text fits, or the code does not")
}

fn claims(token: TokenId, tokens: &Tokens) -> TokenClaims<'static> {
    TokenClaims {
        token,
        purpose: TokenPurpose::ResetByEmail,
        user: Some(UserId::from_bytes([1; 16])),
        address: "ada@example.com",
        binding: Binding::CredentialEpoch(1),
        expires_at: Timestamp::from_micros(1),
        key: tokens.current_key(),
    }
}

/// Names and addresses: what is accepted stays what it is when it is read again, and fits where it is stored.
///
/// # Errors
/// What does not hold.
pub fn identifier(data: &[u8]) -> Result<(), Fault> {
    let text = String::from_utf8_lossy(data);
    is_settled(Username::parse, Username::canonical, &text)?;
    is_settled(Email::parse, Email::canonical, &text)?;
    is_settled(Phone::parse, Phone::canonical, &text)?;
    if let Ok(name) = Identifier::guess(&text) {
        let again = Identifier::guess(name.canonical()).map_err(|_| "a canonical identifier names nothing")?;
        hold(again.kind() == name.kind(), "a canonical identifier names something else")?;
        hold(name.canonical().len() <= 1_024, "an identifier is too long for a key")?;
        hold(!name.redacted().chars().any(char::is_control), "a redaction holds control characters")?;
    }
    Ok(())
}

fn is_settled<T>(
    parse: fn(&str) -> Result<T, InvalidIdentifier>,
    canonical: fn(&T) -> &str,
    text: &str,
) -> Result<(), Fault> {
    let Ok(name) = parse(text) else { return Ok(()) };
    hold(!canonical(&name).chars().any(char::is_control), "a canonical form holds control characters")?;
    let again = parse(canonical(&name)).map_err(|_| "a canonical form is not accepted")?;
    hold(canonical(&again) == canonical(&name), "a canonical form has another one")
}

/// Rows: what can be read is written as it was read.
///
/// # Errors
/// What does not hold.
pub fn row(data: &[u8]) -> Result<(), Fault> {
    use storage::{
        ActivityRow, AppliedRow, ChangeRow, CursorRow, DispatchRow, LetterRow, MessagesRow, SessionRow,
        StoredCredential, TextsRow, TokenRow, UserRow,
    };
    is_stable::<UserRow>(data)?;
    is_stable::<StoredCredential>(data)?;
    is_stable::<ActivityRow>(data)?;
    is_stable::<SessionRow>(data)?;
    is_stable::<TokenRow>(data)?;
    is_stable::<AppliedRow>(data)?;
    is_stable::<ChangeRow>(data)?;
    is_stable::<MessagesRow>(data)?;
    is_stable::<TextsRow>(data)?;
    is_stable::<DispatchRow>(data)?;
    is_stable::<CursorRow>(data)?;
    is_stable::<LetterRow>(data)
}

fn is_stable<T: Serialize + DeserializeOwned + Debug>(data: &[u8]) -> Result<(), Fault> {
    let Ok(row) = storage::decode::<T>(data) else { return Ok(()) };
    let written = storage::encode(&row).map_err(|_| "a row that was read cannot be written")?;
    let again = storage::decode::<T>(&written).map_err(|_| "a row that was written cannot be read")?;
    let rewritten = storage::encode(&again).map_err(|_| "a row cannot be written again")?;
    hold(written == rewritten, "a row is written otherwise each time")
}

/// Signals of the log, and lines of an export of the audit trail, which no key has signed.
///
/// # Errors
/// What does not hold.
pub fn envelope(data: &[u8]) -> Result<(), Fault> {
    if let Ok(told) = storage::decode_signal(7, data) {
        let written = storage::encode_signal(&told).map_err(|_| "a signal that was read cannot be written")?;
        let again = storage::decode_signal(7, &written).map_err(|_| "a signal that was written cannot be read")?;
        hold(again.signal.kind() == told.signal.kind(), "a signal became another one")?;
        let _ = (format!("{told:?}"), serde_json::to_string(&told));
    }
    let keys: [AuditPublicKey; 0] = [];
    let mut verifier = AuditVerifier::new(&keys, None);
    let lines = data.split(|byte| *byte == b'\n').all(|line| verifier.line(line).is_ok());
    hold(!(lines && verifier.finish().is_ok()), "a trail that nobody signed is verified")
}

/// Stored hashes, our own and those of other systems: nothing dearer than the ceiling is read, and what is read is what
/// was written.
///
/// # Errors
/// What does not hold.
pub fn phc_string(data: &[u8]) -> Result<(), Fault> {
    let text = String::from_utf8_lossy(data);
    hold(hasher::reads_phc_as_written(&text), "a stored hash is read as another one")?;
    hold(hasher::reads_as_taken_in(&text), "a hash that was taken in is not read as it is stored")
}

fn hold(condition: bool, otherwise: Fault) -> Result<(), Fault> {
    if condition { Ok(()) } else { Err(otherwise) }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Actor, Context, Envelope, Failure, FlowId, Lane, Personal, Signal, SignalId};
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;
    use crate::stamp::Stamp;
    use crate::storage::{CursorRow, MessagesRow};

    /// What each target accepts, to begin from.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let tokens = Tokens::new(Keyring::ephemeral().unwrap());
        let texts = |all: &[&str]| all.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        match target {
            "token" => {
                let claims = claims(TokenId::new(), &tokens);
                let (link, path) = (tokens.link(&claims).unwrap(), tokens.path(&claims).unwrap());
                let session = session_secret::generate(Timestamp::from_micros(1)).unwrap().0;
                path.split('/').chain([link.as_str(), session.as_str()]).map(|text| text.as_bytes().to_vec()).collect()
            }
            "code" => texts(&["00000000", "12345678"]),
            "identifier" => texts(&["Ada", "ada@exämple.com", "+447911123456", "Ada.Lovelace", "0044 7911 123456"]),
            "row" => vec![
                storage::encode(&CursorRow::default()).unwrap(),
                storage::encode(&MessagesRow {
                    answered: None,
                    started: vec![Timestamp::from_micros(3)],
                    expires_at: Timestamp::from_micros(9),
                })
                .unwrap(),
            ],
            "envelope" => {
                let (user, email) = (UserId::new(), Personal::redacted_only("a***@example.com"));
                let signals = [
                    Signal::UserDeletionStarted { user },
                    Signal::UserAuthenticationFailed {
                        identifier: email,
                        user: Some(user),
                        reason: Failure::UserInactive,
                    },
                    Signal::SignalsLost { count: u64::MAX },
                ];
                let told = signals.map(|signal| storage::encode_signal(&told(user, signal)).unwrap());
                told.into_iter().chain(texts(&["{\"head\":{}}\n{}"])).collect()
            }
            "phc_string" => texts(&[
                "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
                "$argon2i$m=65536,t=2,p=1$c29tZXNhbHQ$9sTbSlTio3Biev89thdrlKKiCaYsjjYVJxGAL3swxpQ",
                "{TRUNCATE72}$2a$05$c92SVSfjeiCD6F2nAD6y0uBpJDjdRkt0EgeC4/31Rf2LUZbDRDE.O",
                "$scrypt$ln=8,r=8,p=1$wlhLyXmP8b53bm1NKYVQqg$mTpvG8lzuuDk+DWz8HZIB6Vum6erDuUm0As5yU+VxWA",
                "pbkdf2_sha256$10000$kjVJaVz6qsnJ$5yPHw3rwJGECpUf70daLGhOrQ5+AMxIJdz1c3bqK1Rs=",
                "AQAAAAIAAAAyAAAAEOMwvh3+FZxqkdMBz2ekgGhwQ4B6pZWND6zgESBuWiHw",
                "$5$rounds=10376$I5lNtXtRmf.OoMd8$Ko3AI1VvTANdyKhBPavaRjJzNpSatKU6QVN9uwS9MH.",
                "{CRYPT}$1$dXc3I7Rw$ctlgjDdWJLMT.qwHsWhXR1",
                "$P$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0",
                "{SSHA}0c0blFTXXNuAMHECS4uxrj3ZieMoWImr",
            ]),
            other => panic!("no seeds for {other}"),
        }
    }

    fn told(user: UserId, signal: Signal) -> Envelope {
        let context = Context::new().request_id("request");
        let stamp = Stamp { flow: FlowId::new(), cause: None, lane: Lane::User(user), actor: Actor::System, context };
        stamp.envelope(SignalId::new(), Timestamp::from_micros(1), signal, None)
    }

    fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..6);
        (prop::sample::select(seeds), edits).prop_map(|(mut bytes, edits)| {
            for (place, byte, edit) in edits {
                let at = place.index(bytes.len() + 1);
                match edit {
                    0 => bytes.insert(at, byte),
                    1 => bytes.truncate(at),
                    2 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => {
                        if let Some(there) = bytes.get_mut(at) {
                            *there ^= byte;
                        }
                    }
                }
            }
            bytes
        })
    }

    #[test]
    fn whatever_the_bytes_each_target_holds() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            for seed in &seeds {
                assert_eq!(target(seed), Ok(()), "{name}: {seed:?}");
            }
            let bytes = prop_oneof![prop::collection::vec(any::<u8>(), 0..400), mutated(seeds)];
            let mut runner = TestRunner::new(Config::with_cases(4_000));
            let held = runner.run(&bytes, |bytes| {
                prop_assert_eq!(target(&bytes), Ok(()), "{}", name);
                Ok(())
            });
            assert!(held.is_ok(), "{name}: {held:?}");
        }
    }
}
