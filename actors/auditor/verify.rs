//! Verification: whether a trail is whole and as it was written, from an export and the public keys alone.

use std::io::{self, BufRead, BufReader, Read};

use majordomo_model::{SignalKind, StoreId};

use super::chain::{AuditHash, Body, StoredLink, digest, genesis, link_hash};
use super::export::{BODY, Ending, HASH, Header, NUMBER, VERSION, following, link_line};
use super::head::{AuditHead, AuditKeyId, AuditPublicKey, HeadPurpose};

/// The longest line of an export, in bytes: a body of 64 KiB, and the header with every key that a keyring can hold.
pub const LINE_LIMIT: usize = 256 * 1024;
/// How many links may come without a checkpoint: whoever can write the store, but has no keys, can write no more anew.
pub const UNSIGNED_LIMIT: u64 = 4_096;

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedAudit {
    /// Whose trail it is.
    pub store: StoreId,
    /// How many records were verified, gaps and checkpoints not counted.
    pub records: u64,
    /// How many links precede the export; 0 where it begins with the trail.
    pub after: u64,
    /// What the trail itself tells is missing from it: places of the log in gaps.
    pub missed: u64,
    /// The signed end.
    pub head: AuditHead,
}

/// What is wrong with a trail: the first flaw, and where. Numbers are those of links, which every line tells.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFlaw {
    /// It could not be read.
    #[error("line {line} cannot be read: {kind}")]
    Unreadable {
        /// The line, from 1.
        line: u64,
        /// What the operating system said.
        kind: io::ErrorKind,
    },
    /// A line is longer than any that an export has.
    #[error("line {line} is too long")]
    LineTooLong {
        /// The line, from 1.
        line: u64,
    },
    /// A line is not written as an export writes it.
    #[error("line {line} is malformed")]
    Malformed {
        /// The line, from 1.
        line: u64,
    },
    /// It is in a format of another version.
    #[error("the export is in another format, of version {found}")]
    UnknownVersion {
        /// The version.
        found: u32,
    },
    /// It begins with a hash that no chain of this store begins with.
    #[error("the beginning does not fit the store")]
    WrongBeginning,
    /// A link is of another store.
    #[error("link {number} is of another store")]
    ForeignStore {
        /// Its number.
        number: u64,
    },
    /// Links are missing, or come later than they should.
    #[error("link {expected} is not where it should be; link {found} is")]
    Missing {
        /// The first that is missing.
        expected: u64,
        /// What is there instead.
        found: u64,
    },
    /// A link is there again, or came too late.
    #[error("link {found} is out of order, or there twice; link {expected} should be there")]
    OutOfOrder {
        /// Which should be there.
        expected: u64,
        /// Which is.
        found: u64,
    },
    /// A link's body or hash is not what was written.
    #[error("link {number}, at place {seq}, was altered, or does not belong there")]
    Altered {
        /// Its number.
        number: u64,
        /// The place of the log that the link before it went up to, and one more.
        seq: u64,
    },
    /// A link's hash is right, and yet it does not follow on the place before.
    #[error("link {number} does not follow on place {seq}")]
    WrongPlace {
        /// Its number.
        number: u64,
        /// The place that the link before it went up to.
        seq: u64,
    },
    /// A record holds another kind of signal than it says.
    #[error("link {number} says that it is a {kind:?}, and holds something else")]
    WrongKind {
        /// Its number.
        number: u64,
        /// What it says.
        kind: SignalKind,
    },
    /// A head is signed under a key that is not among those given.
    #[error("the head over link {number} is signed under the key {key}, which is not known")]
    UnknownKey {
        /// The number that the head tells.
        number: u64,
        /// The name of the key.
        key: AuditKeyId,
    },
    /// A head's signature is not that of its key.
    #[error("the head over link {number} was forged or altered")]
    Forged {
        /// The number that the head tells.
        number: u64,
    },
    /// A head is rightly signed, and speaks of another trail, or stands where it does not belong.
    #[error("the head over link {number} does not fit what precedes it")]
    HeadMismatch {
        /// The number that the head tells.
        number: u64,
    },
    /// More links than [`UNSIGNED_LIMIT`] come without a checkpoint: signatures are missing.
    #[error("no checkpoint signs the links up to link {number}")]
    Unsigned {
        /// The link that is one too many.
        number: u64,
    },
    /// It ends before its end, which is signed.
    #[error("the export is cut off behind link {number}")]
    CutOff {
        /// The last link that is there.
        number: u64,
    },
    /// Something follows the end.
    #[error("line {line} follows the end")]
    BehindEnd {
        /// The line, from 1.
        line: u64,
    },
    /// The head that is held outside goes further than the trail.
    #[error("the trail ends with link {number}, before the head that is held, which is over link {held}")]
    Truncated {
        /// The last link that is there.
        number: u64,
        /// The link that the held head is over.
        held: u64,
    },
    /// The head that is held outside is over another history.
    #[error("link {number} is not the one that the held head is over")]
    Rewritten {
        /// Its number.
        number: u64,
    },
    /// The head that is held outside is over a link before the export.
    #[error("the held head is over link {number}, before the export begins")]
    HeldBefore {
        /// Its number.
        number: u64,
    },
}

impl AuditFlaw {
    /// The stable snake_case name.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::LineTooLong { .. } => "line_too_long",
            Self::Malformed { .. } => "malformed",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::WrongBeginning => "wrong_beginning",
            Self::ForeignStore { .. } => "foreign_store",
            Self::Missing { .. } => "missing",
            Self::Unsigned { .. } => "unsigned",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::Altered { .. } => "altered",
            Self::WrongPlace { .. } => "wrong_place",
            Self::WrongKind { .. } => "wrong_kind",
            Self::UnknownKey { .. } => "unknown_key",
            Self::Forged { .. } => "forged",
            Self::HeadMismatch { .. } => "head_mismatch",
            Self::CutOff { .. } => "cut_off",
            Self::BehindEnd { .. } => "behind_end",
            Self::Truncated { .. } => "truncated",
            Self::Rewritten { .. } => "rewritten",
            Self::HeldBefore { .. } => "held_before",
        }
    }
}

/// Verifies a trail line by line.
#[derive(Debug)]
pub struct AuditVerifier<'a> {
    keys: &'a [AuditPublicKey],
    held: Option<&'a AuditHead>,
    line: u64,
    state: Option<State>,
    end: Option<AuditHead>,
}

/// How far the verification has come.
#[derive(Debug)]
struct State {
    store: StoreId,
    header: AuditHash,
    after: u64,
    number: u64,
    seq: u64,
    hash: AuditHash,
    records: u64,
    missed: u64,
    /// Links since the last checkpoint.
    unsigned: u64,
    is_held_met: bool,
}

impl<'a> AuditVerifier<'a> {
    /// Begins. The keys have to come from elsewhere than the trail; a head that was held outside is looked for in it.
    #[must_use]
    pub const fn new(keys: &'a [AuditPublicKey], held: Option<&'a AuditHead>) -> Self {
        Self { keys, held, line: 0, state: None, end: None }
    }

    /// Takes the next line, without its line feed.
    ///
    /// # Errors
    /// [`AuditFlaw`]; nothing after it is worth looking at.
    pub fn line(&mut self, line: &[u8]) -> Result<(), AuditFlaw> {
        self.line = self.line.saturating_add(1);
        let number = self.line;
        if self.end.is_some() {
            return Err(AuditFlaw::BehindEnd { line: number });
        }
        let malformed = AuditFlaw::Malformed { line: number };
        let Some(state) = &mut self.state else {
            let state = begun(line, malformed)?;
            self.state = Some(state);
            return self.meet_held();
        };
        if let Some(link) = parsed(line) {
            state.link(&link, self.keys, malformed)?;
            return self.meet_held();
        }
        let Ending { head } = serde_json::from_slice(line).map_err(|_| malformed.clone())?;
        if serde_json::to_vec(&Ending { head: head.clone() }).ok().as_deref() != Some(line) {
            return Err(malformed);
        }
        state.signed(&head, HeadPurpose::Export, self.keys)?;
        self.end = Some(head);
        Ok(())
    }

    /// Ends: whether everything was there.
    ///
    /// # Errors
    /// [`AuditFlaw`].
    pub fn finish(self) -> Result<VerifiedAudit, AuditFlaw> {
        let Some(state) = self.state else { return Err(AuditFlaw::CutOff { number: 0 }) };
        let Some(head) = self.end else { return Err(AuditFlaw::CutOff { number: state.number }) };
        match self.held {
            Some(held) if !state.is_held_met => Err(AuditFlaw::Truncated { number: state.number, held: held.number }),
            _ => {
                let State { store, records, after, missed, .. } = state;
                Ok(VerifiedAudit { store, records, after, missed, head })
            }
        }
    }

    /// Compares with the head that is held, once the trail has come there.
    fn meet_held(&mut self) -> Result<(), AuditFlaw> {
        let (Some(held), Some(state)) = (self.held, &mut self.state) else { return Ok(()) };
        let number = held.number;
        if state.number == state.after && !state.is_held_met {
            match held.is_signed_by(self.keys) {
                Some(true) if held.store == state.store => {}
                Some(true) => return Err(AuditFlaw::ForeignStore { number }),
                Some(false) => return Err(AuditFlaw::Forged { number }),
                None => return Err(AuditFlaw::UnknownKey { number, key: held.key }),
            }
            if number < state.after {
                return Err(AuditFlaw::HeldBefore { number });
            }
        }
        if state.number == number {
            if state.hash != held.hash {
                return Err(AuditFlaw::Rewritten { number });
            }
            state.is_held_met = true;
        }
        Ok(())
    }
}

impl State {
    fn link(&mut self, link: &StoredLink<'_>, keys: &[AuditPublicKey], malformed: AuditFlaw) -> Result<(), AuditFlaw> {
        let (expected, found) = (self.number.saturating_add(1), link.number);
        if found > expected {
            return Err(AuditFlaw::Missing { expected, found });
        }
        if found < expected {
            return Err(AuditFlaw::OutOfOrder { expected, found });
        }
        if link_hash(self.hash, found, link.body) != link.hash {
            return Err(AuditFlaw::Altered { number: found, seq: self.seq.saturating_add(1) });
        }
        let body = link.body().map_err(|_| malformed)?;
        self.seq = following(&body, self.seq).ok_or(AuditFlaw::WrongPlace { number: found, seq: self.seq })?;
        match &body {
            Body::Record(record) => {
                let kind = record.kind;
                if record.signal.get("type").and_then(serde_json::Value::as_str) != Some(kind.as_str()) {
                    return Err(AuditFlaw::WrongKind { number: found, kind });
                }
                self.records = self.records.saturating_add(1);
            }
            Body::Gap(gap) => {
                self.missed = self.missed.saturating_add(gap.to.saturating_sub(gap.from)).saturating_add(1);
            }
            Body::Checkpoint(head) => self.signed(head, HeadPurpose::Checkpoint, keys)?,
        }
        let is_signed = matches!(body, Body::Checkpoint(_));
        self.unsigned = if is_signed { 0 } else { self.unsigned.saturating_add(1) };
        if self.unsigned > UNSIGNED_LIMIT {
            return Err(AuditFlaw::Unsigned { number: found });
        }
        (self.number, self.hash) = (found, link.hash);
        Ok(())
    }

    /// Whether a head is over what was read so far.
    fn signed(&self, head: &AuditHead, purpose: HeadPurpose, keys: &[AuditPublicKey]) -> Result<(), AuditFlaw> {
        let number = head.number;
        match head.is_signed_by(keys) {
            None => return Err(AuditFlaw::UnknownKey { number, key: head.key }),
            Some(false) => return Err(AuditFlaw::Forged { number }),
            Some(true) => {}
        }
        if head.store != self.store {
            return Err(AuditFlaw::ForeignStore { number });
        }
        let header = (purpose == HeadPurpose::Export).then_some(self.header);
        if head.purpose != purpose || head.header != header {
            return Err(AuditFlaw::HeadMismatch { number });
        }
        if number > self.number && purpose == HeadPurpose::Export {
            return Err(AuditFlaw::CutOff { number: self.number });
        }
        if (number, head.seq, head.hash) != (self.number, self.seq, self.hash) {
            return Err(AuditFlaw::HeadMismatch { number });
        }
        Ok(())
    }
}

/// Reads the first line.
fn begun(line: &[u8], malformed: AuditFlaw) -> Result<State, AuditFlaw> {
    let header: Header = serde_json::from_slice(line).map_err(|_| malformed.clone())?;
    if header.majordomo_audit != VERSION {
        return Err(AuditFlaw::UnknownVersion { found: header.majordomo_audit });
    }
    if serde_json::to_vec(&header).ok().as_deref() != Some(line) {
        return Err(malformed);
    }
    let Header { store, number, seq, previous, .. } = header;
    if number == 0 && (seq != 0 || previous != genesis(store)) {
        return Err(AuditFlaw::WrongBeginning);
    }
    Ok(State {
        store,
        header: digest(line),
        after: number,
        number,
        seq,
        hash: previous,
        records: 0,
        missed: 0,
        unsigned: 0,
        is_held_met: false,
    })
}

/// The parts of the line of a link, which is written in one way only.
fn parsed(line: &[u8]) -> Option<StoredLink<'_>> {
    let text = std::str::from_utf8(line).ok()?;
    let (number, rest) = text.strip_prefix(NUMBER)?.split_once(HASH)?;
    let (hash, body) = rest.split_once(BODY)?;
    let body = body.strip_suffix('}')?.as_bytes();
    let link = StoredLink { number: number.parse().ok()?, hash: hash.parse().ok()?, body };
    (link_line(&link) == line).then_some(link)
}

/// Verifies an export: from its first line to its signed end, against public keys that are known from elsewhere and, if
/// given, a head that was held outside. Lines are bounded, so memory is.
///
/// What it proves, and what it cannot, is told in `docs/AUDIT.md`.
///
/// # Errors
/// [`AuditFlaw`]: the first flaw, and where.
pub fn verify_audit(
    reader: impl Read,
    keys: &[AuditPublicKey],
    held: Option<&AuditHead>,
) -> Result<VerifiedAudit, AuditFlaw> {
    let mut verifier = AuditVerifier::new(keys, held);
    let (mut reader, mut line) = (BufReader::new(reader), Vec::new());
    loop {
        line.clear();
        let number = verifier.line.saturating_add(1);
        let limit = u64::try_from(LINE_LIMIT).unwrap_or(u64::MAX).saturating_add(1);
        let read = reader.by_ref().take(limit).read_until(b'\n', &mut line);
        let read = read.map_err(|error| AuditFlaw::Unreadable { line: number, kind: error.kind() })?;
        if read == 0 {
            return verifier.finish();
        }
        match line.pop() {
            Some(b'\n') => verifier.line(&line)?,
            _ if read > LINE_LIMIT => return Err(AuditFlaw::LineTooLong { line: number }),
            // The last line has its line feed too, unless it is cut off.
            _ => return Err(AuditFlaw::Malformed { line: number }),
        }
    }
}
