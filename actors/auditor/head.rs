//! The head of the trail: what is signed of it, by whom, and how that is checked. The only home of `ed25519_dalek`.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use majordomo_model::{StoreId, Timestamp};
use serde::{Deserialize, Serialize};

use super::chain::{AuditHash, fields};
use super::hex::Hex;

const DOMAIN: &[u8] = b"majordomo/v1/audit_head";

/// Names a key that signs heads: the [`KeyId`](crate::keys::KeyId) of the master key that it is derived from.
pub type AuditKeyId = Hex<8>;

/// What a head was signed for. It is signed too, so that one cannot stand in for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HeadPurpose {
    /// To stand in the trail itself.
    Checkpoint,
    /// To be held outside.
    Held,
    /// To end an export.
    Export,
}

impl HeadPurpose {
    /// The stable snake_case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Held => "held",
            Self::Export => "export",
        }
    }
}

/// How far the trail of a store went at a time, signed with Ed25519 (RFC 8032). It vouches for every link before it.
///
/// `serde` writes it as JSON, to be kept outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditHead {
    /// What it was signed for.
    pub purpose: HeadPurpose,
    /// Whose trail it is.
    pub store: StoreId,
    /// The last place of the log that the trail accounts for.
    pub seq: u64,
    /// How many links the chain has: records, gaps and checkpoints.
    pub number: u64,
    /// The hash of the last link.
    pub hash: AuditHash,
    /// When it was signed, by the system's clock.
    pub at: Timestamp,
    /// Under which key.
    pub key: AuditKeyId,
    /// Of the head of an export, the SHA-256 of its first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<AuditHash>,
    /// The signature over everything else.
    pub signature: Hex<64>,
}

/// A key by which signatures are checked. It is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPublicKey {
    /// Its name.
    pub id: AuditKeyId,
    /// The 32 bytes of the Ed25519 public key.
    pub public: Hex<32>,
}

impl AuditHead {
    fn message(&self) -> Vec<u8> {
        let header = self.header.as_ref().map_or(&[][..], |header| header.as_bytes());
        fields(&[
            DOMAIN,
            self.purpose.as_str().as_bytes(),
            self.store.as_bytes(),
            &self.seq.to_be_bytes(),
            &self.number.to_be_bytes(),
            self.hash.as_bytes(),
            &self.at.as_micros().to_be_bytes(),
            self.key.as_bytes(),
            header,
        ])
    }

    /// Whether one of these keys signed it: `None` if the key that it names is not among them.
    #[must_use]
    pub fn is_signed_by(&self, keys: &[AuditPublicKey]) -> Option<bool> {
        let key = keys.iter().find(|key| key.id == self.key)?;
        let Ok(public) = VerifyingKey::from_bytes(key.public.as_bytes()) else { return Some(false) };
        Some(public.verify_strict(&self.message(), &Signature::from_bytes(self.signature.as_bytes())).is_ok())
    }
}

/// The end of a trail, to be signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsigned {
    pub(super) store: StoreId,
    pub(super) seq: u64,
    pub(super) number: u64,
    pub(super) hash: AuditHash,
}

/// The keys that sign a trail: one current, and those before it, of which only the public halves are still of use.
pub struct AuditSigner {
    id: AuditKeyId,
    key: SigningKey,
    earlier: Vec<AuditPublicKey>,
}

impl AuditSigner {
    /// Signs under the key that has this name, made of this seed.
    #[must_use]
    pub fn new(id: [u8; 8], seed: &[u8; 32]) -> Self {
        Self { id: Hex(id), key: SigningKey::from_bytes(seed), earlier: Vec::new() }
    }

    /// Lists a key that signed before.
    #[must_use]
    pub fn earlier(mut self, id: [u8; 8], seed: &[u8; 32]) -> Self {
        self.earlier.push(public(Hex(id), &SigningKey::from_bytes(seed)));
        self
    }

    /// The public keys, the current one first.
    #[must_use]
    pub fn public_keys(&self) -> Vec<AuditPublicKey> {
        std::iter::once(public(self.id, &self.key)).chain(self.earlier.iter().copied()).collect()
    }

    pub(super) fn sign(
        &self,
        purpose: HeadPurpose,
        end: Unsigned,
        at: Timestamp,
        header: Option<AuditHash>,
    ) -> AuditHead {
        let Unsigned { store, seq, number, hash } = end;
        let (key, signature) = (self.id, Hex([0; 64]));
        let mut head = AuditHead { purpose, store, seq, number, hash, at, key, header, signature };
        head.signature = Hex(self.key.sign(&head.message()).to_bytes());
        head
    }
}

fn public(id: AuditKeyId, key: &SigningKey) -> AuditPublicKey {
    AuditPublicKey { id, public: Hex(key.verifying_key().to_bytes()) }
}

/// Shows the names of the keys.
impl fmt::Debug for AuditSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AuditSigner").field("id", &self.id).finish_non_exhaustive()
    }
}
