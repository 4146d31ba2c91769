//! The master keys, and every key and keyed hash that is derived from them.

mod file;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// The most keys that one keyring holds: a rotation a week for twenty years stays under it.
const MAX_KEYS: usize = 1_024;

/// Why there is no keyring. Whichever it is, the system must not start, and no key may be made in its place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A database exists, but its key file does not. Bring the file back; a new one would not fit the database.
    #[error("the key file {} is missing", path.display())]
    Missing {
        /// Where the file was looked for.
        path: PathBuf,
    },
    /// Others than the owner may reach the key file, or it is executable. `chmod 600` repairs it; unix only.
    #[error("the key file {} has mode {mode:03o}, wider than 600", path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file is not of the documented format (see [`Keyring::open_or_create`]).
    #[error("the key file {} is malformed at line {line}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The first bad line, counted from 1; the last one if the lines are good but their keys cannot be used.
        line: usize,
    },
    /// The keys cannot be used: none at all, one twice, one of zero bytes only, or more than 1,024.
    #[error("the keys cannot be used: none, one twice, one all zero, or more than {MAX_KEYS}")]
    Unusable,
    /// The key file could not be read or written.
    #[error("the key file {} cannot be read or written: {}", path.display(), source.kind())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random(#[source] getrandom::Error),
}

impl KeyError {
    /// The stable name of the error.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "key_file_missing",
            Self::TooOpen { .. } => "key_file_too_open",
            Self::Malformed { .. } => "key_file_malformed",
            Self::Unusable => "keys_unusable",
            Self::Io { .. } => "key_file_io",
            Self::Random(_) => "no_random_bytes",
        }
    }
}

/// Names a master key without telling it: the first 8 bytes of SHA-256 over `majordomo/v1/key_id` and the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// The identifier with these bytes, as storage carries it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The eight bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// Sixteen lower-case hexadecimal digits.
impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyId({self})")
    }
}

/// What a derived key is for. Keys of two purposes tell nothing of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// One-time tokens and codes.
    Token,
    /// Hashes of identifiers that match no user.
    IdentifierHash,
    /// Seeds of decoy salts.
    Decoy,
    /// Fingerprints of commands.
    Fingerprint,
    /// Proofs that a database belongs to a key.
    DatabaseProof,
    /// Seeds of the keys that sign the audit trail.
    AuditSignature,
    /// What known devices keep.
    Device,
    /// Sealing of password hashes.
    Credential,
}

impl Purpose {
    /// The text that the key is derived from. Changing one orphans whatever was made with it.
    const fn label(self) -> &'static str {
        match self {
            Self::Token => "majordomo/v1/token",
            Self::IdentifierHash => "majordomo/v1/identifier_hash",
            Self::Decoy => "majordomo/v1/decoy",
            Self::Fingerprint => "majordomo/v1/fingerprint",
            Self::DatabaseProof => "majordomo/v1/database_proof",
            Self::AuditSignature => "majordomo/v1/audit_signature",
            Self::Device => "majordomo/v1/device",
            Self::Credential => "majordomo/v1/credential",
        }
    }
}

/// A key derived for one purpose. It is wiped when dropped, and shows nothing of itself.
pub struct DerivedKey(Zeroizing<[u8; 32]>);

impl DerivedKey {
    /// The 32 bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// HMAC-SHA256 (RFC 2104) over the fields, each preceded by its length in bytes (64 bits, big-endian), so that no
    /// two lists of fields share a message.
    #[must_use]
    pub(crate) fn authenticate(&self, fields: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut mac = keyed(&self.0);
        for field in fields {
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field);
        }
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DerivedKey([REDACTED])")
    }
}

/// HMAC pads a key with zeros up to its block of 64 bytes; padding it here leaves no length to be refused.
fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(padded, byte)| *padded = *byte);
    Hmac::new((&*block).into())
}

struct MasterKey {
    id: KeyId,
    secret: Zeroizing<[u8; 32]>,
}

impl MasterKey {
    fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        let digest: [u8; 32] =
            Sha256::new().chain_update("majordomo/v1/key_id").chain_update(secret.as_slice()).finalize().into();
        let mut id = [0; 8];
        id.iter_mut().zip(digest).for_each(|(short, byte)| *short = byte);
        Self { id: KeyId(id), secret }
    }

    fn random() -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret).map_err(KeyError::Random)?;
        Ok(Self::new(secret))
    }

    fn derive(&self, purpose: Purpose) -> DerivedKey {
        let mut mac = keyed(&self.secret);
        mac.update(purpose.label().as_bytes());
        DerivedKey(Zeroizing::new(mac.finalize().into_bytes().into()))
    }
}

/// The master keys of one database: one current, and those before it. Cloning shares them.
///
/// New tokens are made under the current key; what an earlier key made stays readable by its [`KeyId`].
/// Keyed hashes that rows are found by (of identifiers and of commands) use the *oldest* key: under the current one,
/// a rotation would forget every throttle and let a command that was done be done again. So the oldest key must be
/// kept as long as the database is.
#[derive(Clone)]
pub struct Keyring(Arc<Ring>);

struct Ring {
    current: MasterKey,
    /// Newest first.
    earlier: Vec<MasterKey>,
    lasting: Lasting,
}

/// What is derived from the oldest key, once: every request needs it.
struct Lasting {
    identifier_hash: DerivedKey,
    decoy: DerivedKey,
    fingerprint: DerivedKey,
}

impl Ring {
    fn new(current: MasterKey, earlier: Vec<MasterKey>) -> Self {
        let oldest = earlier.last().unwrap_or(&current);
        let lasting = Lasting {
            identifier_hash: oldest.derive(Purpose::IdentifierHash),
            decoy: oldest.derive(Purpose::Decoy),
            fingerprint: oldest.derive(Purpose::Fingerprint),
        };
        Self { current, earlier, lasting }
    }
}

impl Keyring {
    /// Reads the key file, or makes it if it is not there and `create` allows it.
    ///
    /// Give `create` only while no database exists: a key made later would not fit the database. A file that exists
    /// is read and never replaced, also when two processes start at once.
    ///
    /// The file is UTF-8 text with mode 600. Its first line is `majordomo-keys 1`; then comes a line a key, newest
    /// first: the [`KeyId`], a space, `mdk_`, and the key's 32 bytes in base64url without padding (RFC 4648
    /// section 5). Empty lines and lines that begin with `#` say nothing. It belongs in no backup of the database.
    ///
    /// # Errors
    /// [`KeyError::Missing`], [`KeyError::TooOpen`], [`KeyError::Malformed`], [`KeyError::Io`], [`KeyError::Random`].
    pub fn open_or_create(path: &Path, create: bool) -> Result<Self, KeyError> {
        if create {
            file::clear(path);
        }
        match file::read(path) {
            Err(KeyError::Missing { .. }) if create => {
                file::create(path, &Self::ephemeral()?)?;
                file::read(path)
            }
            outcome => outcome,
        }
    }

    /// Adds a fresh current key to the key file and gives the keyring that the file now holds. Lines of comment are
    /// not kept.
    ///
    /// Running systems go on with the keys that they read. Two rotations of one file must not run at once.
    ///
    /// # Errors
    /// As [`Keyring::open_or_create`], and [`KeyError::Unusable`] if the file is full. The file is then as it was,
    /// except that an error of the very last step, syncing the folder, may leave the new file in place.
    pub fn rotate(path: &Path) -> Result<Self, KeyError> {
        let before = file::read(path)?;
        let mut keys = vec![MasterKey::random()?];
        keys.extend(before.keys().map(|key| MasterKey { id: key.id, secret: key.secret.clone() }));
        let after = Self::assemble(keys)?;
        file::replace(path, &after)?;
        Ok(after)
    }

    /// The keys that the app gives, newest first; its copy is wiped.
    ///
    /// # Errors
    /// [`KeyError::Unusable`].
    pub fn from_keys(mut keys: Vec<[u8; 32]>) -> Result<Self, KeyError> {
        let masters = keys.iter().map(|key| MasterKey::new(Zeroizing::new(*key))).collect();
        keys.zeroize();
        Self::assemble(masters)
    }

    /// One random key that is kept nowhere, for a system in memory.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn ephemeral() -> Result<Self, KeyError> {
        Ok(Self(Arc::new(Ring::new(MasterKey::random()?, Vec::new()))))
    }

    fn assemble(keys: Vec<MasterKey>) -> Result<Self, KeyError> {
        let blank = keys.iter().any(|key| *key.secret == [0; 32]);
        let mut ids: Vec<_> = keys.iter().map(|key| key.id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        if blank || ids.len() != keys.len() || keys.len() > MAX_KEYS {
            return Err(KeyError::Unusable);
        }
        let mut newest_first = keys.into_iter();
        let current = newest_first.next().ok_or(KeyError::Unusable)?;
        Ok(Self(Arc::new(Ring::new(current, newest_first.collect()))))
    }

    fn keys(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.0.current).chain(&self.0.earlier)
    }

    /// The key that new tokens are made under.
    #[must_use]
    pub fn current(&self) -> KeyId {
        self.0.current.id
    }

    /// The key for one purpose: HMAC-SHA256 over `majordomo/v1/<purpose>` under the master key. `None` if the keyring
    /// does not hold that master key.
    #[must_use]
    pub(crate) fn derive(&self, key: KeyId, purpose: Purpose) -> Option<DerivedKey> {
        self.keys().find(|master| master.id == key).map(|master| master.derive(purpose))
    }

    /// The current key for one purpose, with its name.
    #[must_use]
    pub(crate) fn derive_current(&self, purpose: Purpose) -> (KeyId, DerivedKey) {
        (self.0.current.id, self.0.current.derive(purpose))
    }

    /// The seeds of the Ed25519 keys that sign the audit trail (RFC 8032 calls them private keys), one for each master
    /// key, the current one apart: HMAC-SHA256 over `majordomo/v1/audit_signature` under the master key. Whoever has one
    /// can sign a trail of his own making.
    #[must_use]
    pub fn audit_seeds(&self) -> ((KeyId, DerivedKey), Vec<(KeyId, DerivedKey)>) {
        let seed = |master: &MasterKey| (master.id, master.derive(Purpose::AuditSignature));
        (seed(&self.0.current), self.0.earlier.iter().map(seed).collect())
    }

    /// What a database keeps to recognise its keys by: a keyed hash of the database's identifier under the current
    /// key, and that key's name.
    #[must_use]
    pub(crate) fn proof_for(&self, database: [u8; 16]) -> (KeyId, [u8; 32]) {
        (self.0.current.id, *self.0.current.derive(Purpose::DatabaseProof).authenticate(&[&database]))
    }

    /// Whether this keyring, or an earlier state of it, made the proof that the database keeps. If not, the keyring
    /// belongs to another database and the system must not start.
    #[must_use]
    pub(crate) fn recognises(&self, database: [u8; 16], key: KeyId, proof: &[u8; 32]) -> bool {
        self.derive(key, Purpose::DatabaseProof)
            .is_some_and(|derived| bool::from(derived.authenticate(&[&database]).ct_eq(proof)))
    }

    /// The keyed hash under which an identifier that matches no user is remembered. `kind` keeps an e-mail address
    /// apart from a username of the same spelling. The same across rotations.
    #[must_use]
    pub(crate) fn identifier_hash(&self, kind: &str, canonical: &str) -> [u8; 32] {
        *self.0.lasting.identifier_hash.authenticate(&[kind.as_bytes(), canonical.as_bytes()])
    }

    /// What the decoy salt of an identifier without a credential is taken from. The same across rotations.
    #[must_use]
    pub(crate) fn decoy_seed(&self, identifier: &str) -> [u8; 32] {
        *self.0.lasting.decoy.authenticate(&[identifier.as_bytes()])
    }

    /// The keyed hash of a command's fields, to tell the same command sent twice from another one under its
    /// identifier. The same across rotations.
    #[must_use]
    pub(crate) fn fingerprint(&self, fields: &[&[u8]]) -> [u8; 32] {
        *self.0.lasting.fingerprint.authenticate(fields)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys().map(|key| key.id).collect();
        formatter.debug_struct("Keyring").field("ids", &ids).field("secrets", &"[REDACTED]").finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];

    fn hexadecimal(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // The expected values were computed apart from this code, from the words of the documentation.
    #[test]
    fn derivation_is_pinned() {
        let keyring = Keyring::from_keys(vec![OLD]).unwrap();
        assert_eq!(keyring.current().to_string(), "c3acae523d26cc89");
        for (purpose, expected) in [
            (Purpose::Token, "13ffc44ea2fd0f2a3c9061e2af480a24c1d0b7af847e033d2614bd7619205ed2"),
            (Purpose::IdentifierHash, "923d85c0858b64fe4776b2b904bf24b384344baefffbbdd141246660672d79bb"),
            (Purpose::Decoy, "0005aedcf5ab7000297a27f78535db2a49b4136c944290ebe866ac14e5482918"),
            (Purpose::Fingerprint, "53f8f3bce0b2f294ce5ec2d001a2378e98dedaf575f268f9602653be29b00047"),
            (Purpose::DatabaseProof, "71543a7f6d844f31e3ff13f113da698b4f74056fe623607dee1ff7126b99cc53"),
            (Purpose::AuditSignature, "af07fb9cc79a8265d09492f4992c7565a46227882ec0504c38131f604aa21725"),
            (Purpose::Credential, "b9cb3dd167a79dba21ac6c618623f1ee666426a3f3b8d047fe12f468a6aeb057"),
        ] {
            let derived = keyring.derive(keyring.current(), purpose).unwrap();
            assert_eq!(hexadecimal(&*derived.0), expected, "{purpose:?}");
        }
        for (found, expected) in [
            (
                keyring.identifier_hash("email", "a@example.com"),
                "052aa93f44d611e7e995654efe95b1552465449b2f4b8d9ddda10d9c8e4c6d2d",
            ),
            (keyring.decoy_seed("a@example.com"), "ba5b5637ae0c3b233f4412613a238d997bc292097a9f024f6167a4c7953289e0"),
            (
                keyring.fingerprint(&[b"register", b"anna"]),
                "563d1bcfa9815cf23a98d8ae93bbe38a88b0bb2eef7787856046347c0d5be221",
            ),
            (keyring.proof_for([9; 16]).1, "2e434ae20ee8c5057fa2db9fc06f058dc282b5e4b0c66ded9208a90e5448d508"),
        ] {
            assert_eq!(hexadecimal(&found), expected);
        }
    }

    #[test]
    fn fields_do_not_run_together() {
        let keyring = Keyring::ephemeral().unwrap();
        assert_ne!(keyring.fingerprint(&[b"ab", b"c"]), keyring.fingerprint(&[b"a", b"bc"]));
        assert_ne!(keyring.fingerprint(&[b"ab"]), keyring.fingerprint(&[b"ab", b""]));
        assert_ne!(keyring.identifier_hash("email", "a"), keyring.identifier_hash("username", "a"));
    }

    #[test]
    fn what_rows_are_found_by_outlives_a_new_key() {
        let before = Keyring::from_keys(vec![OLD]).unwrap();
        let after = Keyring::from_keys(vec![NEW, OLD]).unwrap();
        assert_ne!(after.current(), before.current());
        assert_eq!(after.identifier_hash("email", "a"), before.identifier_hash("email", "a"));
        assert_eq!(after.decoy_seed("a"), before.decoy_seed("a"));
        assert_eq!(after.fingerprint(&[b"a"]), before.fingerprint(&[b"a"]));
        let derived = |keyring: &Keyring| *keyring.derive(before.current(), Purpose::Token).unwrap().0;
        assert_eq!(derived(&after), derived(&before));
        assert!(before.derive(after.current(), Purpose::Token).is_none());
    }

    #[test]
    fn a_database_knows_its_keys() {
        let (ours, foreign) = (Keyring::from_keys(vec![OLD]).unwrap(), Keyring::from_keys(vec![NEW]).unwrap());
        let rotated = Keyring::from_keys(vec![NEW, OLD]).unwrap();
        let (key, proof) = ours.proof_for([9; 16]);
        assert!(ours.recognises([9; 16], key, &proof));
        assert!(rotated.recognises([9; 16], key, &proof));
        assert!(!foreign.recognises([9; 16], key, &proof));
        assert!(!foreign.recognises([9; 16], foreign.current(), &proof));
        assert!(!rotated.recognises([9; 16], rotated.current(), &proof));
        assert!(!ours.recognises([8; 16], key, &proof));
    }

    #[test]
    fn unusable_keys_are_refused() {
        for keys in [vec![], vec![OLD, OLD], vec![OLD, [0; 32]]] {
            assert!(matches!(Keyring::from_keys(keys), Err(KeyError::Unusable)));
        }
        let many = (1..=1_025_u32).map(|number| {
            let mut key = OLD;
            key[..4].copy_from_slice(&number.to_be_bytes());
            key
        });
        assert!(Keyring::from_keys(many.clone().skip(1).collect()).is_ok());
        assert!(matches!(Keyring::from_keys(many.collect()), Err(KeyError::Unusable)));
    }

    #[test]
    fn debug_shows_no_key() {
        let keyring = Keyring::from_keys(vec![[0xa7; 32]]).unwrap();
        let derived = keyring.derive(keyring.current(), Purpose::Token).unwrap();
        assert_eq!(format!("{derived:?}"), "DerivedKey([REDACTED])");
        let shown = format!("{keyring:?} {keyring:#?}");
        assert!(shown.contains("[REDACTED]") && shown.contains(&keyring.current().to_string()));
        for canary in ["167", "a7a7", "A7A7", "p6enp6"] {
            assert!(!shown.contains(canary), "{shown}");
        }
    }
}
