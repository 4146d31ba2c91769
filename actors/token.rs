//! One-time tokens and codes: derived from a row and a key, and never stored.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use majordomo_model::{ContactId, Timestamp, TokenId, TokenPurpose, UserId};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub use crate::keys::KeyId;
use crate::keys::{Keyring, Purpose};

const LINK_PREFIX: &str = "mdt_";
const LINK_LENGTH: usize = 4 + 64;
const USER_SEGMENT_LENGTH: usize = 22;
const LINK_DOMAIN: &str = "link";
const CODE_DOMAIN: &str = "code";

/// Digits of a code that sets a new password.
pub const RESET_CODE_DIGITS: usize = 8;
/// Digits of a code that proves a contact.
pub const VERIFICATION_CODE_DIGITS: usize = 6;

/// The state that a token lives and dies with: once it has moved on, the token no longer fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// The user's credential epoch, which grows whenever what logs the user in changes. Binds resets.
    CredentialEpoch(u64),
    /// One contact in one state of it, so that verifying one address leaves the tokens of others alone.
    ContactRevision {
        /// The contact.
        contact: ContactId,
        /// How often it was changed.
        revision: u32,
    },
    /// The change that made this version of the user, whatever they become later. Binds links that undo it.
    Change(u64),
}

impl Binding {
    /// The contact that the token is bound to, if it is bound to one.
    #[must_use]
    pub const fn contact(self) -> Option<ContactId> {
        match self {
            Self::CredentialEpoch(_) | Self::Change(_) => None,
            Self::ContactRevision { contact, .. } => Some(contact),
        }
    }

    fn encode(self) -> (&'static str, Vec<u8>) {
        match self {
            Self::CredentialEpoch(epoch) => ("credential_epoch", epoch.to_be_bytes().to_vec()),
            Self::Change(version) => ("change", version.to_be_bytes().to_vec()),
            Self::ContactRevision { contact, revision } => {
                ("contact_revision", [contact.as_bytes().as_slice(), &revision.to_be_bytes()].concat())
            }
        }
    }
}

/// Everything that a token vouches for, as its row tells it. Another value in any field is another token.
#[derive(Clone, Copy)]
pub struct TokenClaims<'a> {
    /// The token's row, and the challenge that a code answers.
    pub token: TokenId,
    /// What it is for.
    pub purpose: TokenPurpose,
    /// Whose it is; `None` for the row that an unknown address leaves, which no message is sent for.
    pub user: Option<UserId>,
    /// The address that it was sent to, canonical and exact.
    pub address: &'a str,
    /// What it lives and dies with.
    pub binding: Binding,
    /// When it expires. Whoever consumes the token compares this with the clock; nothing here does.
    pub expires_at: Timestamp,
    /// The master key that it is derived from.
    pub key: KeyId,
}

impl fmt::Debug for TokenClaims<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TokenClaims")
            .field("token", &self.token)
            .field("purpose", &self.purpose)
            .field("user", &self.user)
            .field("address", &"[REDACTED]")
            .field("binding", &self.binding)
            .field("expires_at", &self.expires_at)
            .field("key", &self.key)
            .finish()
    }
}

/// The secret half of a link token that somebody presented, not yet compared with anything.
pub struct Presented(Zeroizing<[u8; 32]>);

impl fmt::Debug for Presented {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Presented([REDACTED])")
    }
}

/// Derives tokens and codes, and tells whether a presented one fits. Cloning shares the keys.
///
/// Nothing here is single use or counts attempts: that is the token's row, marked in the batch that consumes it.
#[derive(Clone, Debug)]
pub struct Tokens {
    keyring: Keyring,
}

impl Tokens {
    /// Tokens under the keys of this keyring.
    #[must_use]
    pub const fn new(keyring: Keyring) -> Self {
        Self { keyring }
    }

    /// The key that the claims of a new token name.
    #[must_use]
    pub fn current_key(&self) -> KeyId {
        self.keyring.current()
    }

    /// The link token: `mdt_`, then the token id's 16 bytes and the verifier's 32 in base64url without padding (68
    /// characters). The same claims give the same token. `None` if the keyring lacks the key.
    #[must_use]
    pub fn link(&self, claims: &TokenClaims<'_>) -> Option<Zeroizing<String>> {
        let verifier = self.authenticate(LINK_DOMAIN, claims)?;
        let mut raw = Zeroizing::new([0; 48]);
        raw.iter_mut().zip(claims.token.as_bytes().iter().chain(&*verifier)).for_each(|(to, from)| *to = *from);
        let mut wire = Zeroizing::new(String::with_capacity(LINK_LENGTH));
        wire.push_str(LINK_PREFIX);
        URL_SAFE_NO_PAD.encode_string(raw.as_slice(), &mut wire);
        Some(wire)
    }

    /// Whether the presented half is the one that these claims give. Takes the same time wherever they differ.
    #[must_use]
    pub fn verify_link(&self, claims: &TokenClaims<'_>, presented: &Presented) -> bool {
        self.authenticate(LINK_DOMAIN, claims)
            .is_some_and(|verifier| bool::from(verifier.ct_eq(presented.0.as_slice())))
    }

    /// The code that answers the token's challenge: 8 digits for a reset, 6 for a verification, leading zeros kept.
    /// `None` if the keyring lacks the key, or for a purpose that has links only.
    ///
    /// It is 128 bits of an HMAC modulo 10^8 (10^6), so no code is likelier than another by more than 2^-128.
    #[must_use]
    pub fn code(&self, claims: &TokenClaims<'_>) -> Option<Zeroizing<String>> {
        let mac = self.authenticate(CODE_DOMAIN, claims)?;
        let number = u128::from_be_bytes(*mac.first_chunk()?);
        let digits = code_digits(claims.purpose)?;
        let short = number % 10_u128.pow(u32::try_from(digits).ok()?);
        Some(Zeroizing::new(format!("{short:0digits$}")))
    }

    /// Whether the text is the code that these claims give. Takes the same time wherever the digits differ.
    #[must_use]
    pub fn verify_code(&self, claims: &TokenClaims<'_>, presented: &str) -> bool {
        // Slices of unequal length are unequal at once; the length of a code is no secret.
        self.code(claims).is_some_and(|code| bool::from(code.as_bytes().ct_eq(presented.as_bytes())))
    }

    /// The path that a message links to: `/accounts/password_reset_confirm/<user>/<token>/` for a reset,
    /// `/accounts/user_verification_confirm/<user>/<token>/` for a verification,
    /// `/accounts/change_undo_confirm/<user>/<token>/` for what takes a change back,
    /// `/accounts/account_unlock_confirm/<user>/<token>/` for what lifts a lock, where `<user>` is the user id's 16
    /// bytes in base64url without padding. `None` without a user, or if the keyring lacks the key.
    #[must_use]
    pub fn path(&self, claims: &TokenClaims<'_>) -> Option<Zeroizing<String>> {
        let page = match claims.purpose {
            TokenPurpose::ResetByEmail | TokenPurpose::ResetByPhone => "password_reset_confirm",
            TokenPurpose::UndoChange => "change_undo_confirm",
            TokenPurpose::Unlock => "account_unlock_confirm",
            _ => "user_verification_confirm",
        };
        let user = URL_SAFE_NO_PAD.encode(claims.user?.as_bytes());
        let token = self.link(claims)?;
        // Joined at once: a text that grows would leave copies behind that nobody wipes.
        Some(Zeroizing::new(["/accounts/", page, "/", &user, "/", &token, "/"].concat()))
    }

    fn authenticate(&self, domain: &str, claims: &TokenClaims<'_>) -> Option<Zeroizing<[u8; 32]>> {
        let (binding, bound_to) = claims.binding.encode();
        let user = claims.user.as_ref().map_or([].as_slice(), |user| user.as_bytes());
        let fields: [&[u8]; 8] = [
            domain.as_bytes(),
            claims.purpose.as_str().as_bytes(),
            claims.token.as_bytes(),
            user,
            claims.address.as_bytes(),
            binding.as_bytes(),
            &bound_to,
            &claims.expires_at.as_micros().to_be_bytes(),
        ];
        Some(self.keyring.derive(claims.key, Purpose::Token)?.authenticate(&fields))
    }
}

/// The two halves of a link token: the row to look up, and the secret to compare with what the row gives. `None`,
/// before any lookup, unless the text is spelled exactly as [`Tokens::link`] spells it.
#[must_use]
pub fn parse_link(wire: &str) -> Option<(TokenId, Presented)> {
    if wire.len() != LINK_LENGTH {
        return None;
    }
    let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(wire.strip_prefix(LINK_PREFIX)?).ok()?);
    let (token, verifier) = decoded.split_first_chunk::<16>()?;
    Some((TokenId::from_bytes(*token), Presented(Zeroizing::new(verifier.try_into().ok()?))))
}

/// The user that a path names (see [`Tokens::path`]). `None` unless the segment is spelled exactly as it is there.
#[must_use]
pub fn parse_user_segment(segment: &str) -> Option<UserId> {
    if segment.len() != USER_SEGMENT_LENGTH {
        return None;
    }
    let decoded = URL_SAFE_NO_PAD.decode(segment).ok()?;
    decoded.try_into().ok().map(UserId::from_bytes)
}

/// How long the code of a purpose is; `None` where whoever reads the message has to follow the link.
const fn code_digits(purpose: TokenPurpose) -> Option<usize> {
    match purpose {
        TokenPurpose::ResetByEmail | TokenPurpose::ResetByPhone => Some(RESET_CODE_DIGITS),
        TokenPurpose::UndoChange | TokenPurpose::Unlock => None,
        _ => Some(VERIFICATION_CODE_DIGITS),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];
    const LINK: &str = "mdt_AwMDAwMDAwMDAwMDAwMDA3l6Cxrp79F4tHb0syqxcXalgP5FqFN9OEh4bTLxJpeB";

    fn tokens(keys: &[[u8; 32]]) -> Tokens {
        Tokens::new(Keyring::from_keys(keys.to_vec()).unwrap())
    }

    fn reset_claims() -> TokenClaims<'static> {
        TokenClaims {
            token: TokenId::from_bytes([3; 16]),
            purpose: TokenPurpose::ResetByEmail,
            user: Some(UserId::from_bytes([4; 16])),
            address: "a@example.com",
            binding: Binding::CredentialEpoch(7),
            expires_at: Timestamp::from_micros(1_700_000_000_000_000),
            key: tokens(&[OLD]).current_key(),
        }
    }

    fn verification_claims() -> TokenClaims<'static> {
        let binding = Binding::ContactRevision { contact: ContactId::from_bytes([5; 16]), revision: 2 };
        TokenClaims { purpose: TokenPurpose::VerifyPhone, binding, ..reset_claims() }
    }

    fn presented(link: &str) -> Presented {
        parse_link(link).unwrap().1
    }

    // The expected values were computed apart from this code, from the words of the documentation.
    #[test]
    fn derivation_is_pinned() {
        let tokens = tokens(&[OLD]);
        let (reset, verification) = (reset_claims(), verification_claims());
        assert_eq!(*tokens.link(&reset).unwrap(), LINK);
        assert_eq!(*tokens.code(&reset).unwrap(), "94852332");
        assert_eq!(
            *tokens.path(&reset).unwrap(),
            format!("/accounts/password_reset_confirm/BAQEBAQEBAQEBAQEBAQEBA/{LINK}/")
        );
        let link = "mdt_AwMDAwMDAwMDAwMDAwMDA9N6O624c4YH58gIq3idj-qsSoG4IRk4ssFVUDY1KEVX";
        assert_eq!(*tokens.link(&verification).unwrap(), link);
        assert_eq!(*tokens.code(&verification).unwrap(), "200858");
        assert_eq!(
            *tokens.path(&verification).unwrap(),
            format!("/accounts/user_verification_confirm/BAQEBAQEBAQEBAQEBAQEBA/{link}/")
        );
    }

    #[test]
    fn another_value_in_any_field_is_another_token() {
        let tokens = tokens(&[NEW, OLD]);
        let claims = reset_claims();
        let contact = ContactId::from_bytes([5; 16]);
        let bound = |binding| TokenClaims { binding, ..claims };
        let others = [
            TokenClaims { token: TokenId::from_bytes([9; 16]), ..claims },
            TokenClaims { purpose: TokenPurpose::ResetByPhone, ..claims },
            TokenClaims { purpose: TokenPurpose::VerifyEmail, ..claims },
            TokenClaims { purpose: TokenPurpose::VerifyPhone, ..claims },
            TokenClaims { purpose: TokenPurpose::UndoChange, ..claims },
            TokenClaims { purpose: TokenPurpose::Unlock, ..claims },
            TokenClaims { user: Some(UserId::from_bytes([9; 16])), ..claims },
            TokenClaims { user: None, ..claims },
            TokenClaims { address: "b@example.com", ..claims },
            TokenClaims { address: "A@example.com", ..claims },
            TokenClaims { address: "", ..claims },
            bound(Binding::CredentialEpoch(8)),
            bound(Binding::Change(7)),
            bound(Binding::Change(8)),
            bound(Binding::ContactRevision { contact, revision: 7 }),
            bound(Binding::ContactRevision { contact, revision: 8 }),
            bound(Binding::ContactRevision { contact: ContactId::from_bytes([9; 16]), revision: 7 }),
            TokenClaims { expires_at: Timestamp::from_micros(1_700_000_000_000_001), ..claims },
            TokenClaims { key: tokens.current_key(), ..claims },
        ];
        let all: Vec<_> = std::iter::once(claims).chain(others).collect();
        let links: Vec<_> = all.iter().map(|claims| tokens.link(claims).unwrap()).collect();
        let verifiers: HashSet<_> = links.iter().map(|link| link.split_at(26).1).collect();
        assert_eq!(verifiers.len(), all.len());
        for (made, link) in links.iter().enumerate() {
            for (checked, claims) in all.iter().enumerate() {
                assert_eq!(tokens.verify_link(claims, &presented(link)), made == checked, "{made} against {checked}");
            }
        }
        let codes: HashSet<_> = all.iter().filter_map(|claims| Some(tokens.code(claims)?.to_string())).collect();
        assert_eq!(codes.len(), all.len() - 2, "a change is taken back, and a lock lifted, by link alone");
    }

    #[test]
    fn an_older_key_still_opens_and_a_lacking_one_never_does() {
        let (before, after, foreign) = (tokens(&[OLD]), tokens(&[NEW, OLD]), tokens(&[NEW]));
        let claims = reset_claims();
        let (link, code) = (before.link(&claims).unwrap(), before.code(&claims).unwrap());
        assert_eq!(after.link(&claims).unwrap(), link);
        assert!(after.verify_link(&claims, &presented(&link)) && after.verify_code(&claims, &code));
        assert!(!foreign.verify_link(&claims, &presented(&link)) && !foreign.verify_code(&claims, &code));
        assert!(!foreign.verify_code(&claims, ""));
        assert!(foreign.link(&claims).is_none() && foreign.code(&claims).is_none() && foreign.path(&claims).is_none());
    }

    #[test]
    fn a_code_keeps_its_leading_zeros_and_takes_no_other_spelling() {
        let tokens = tokens(&[OLD]);
        let claims = TokenClaims { binding: Binding::CredentialEpoch(14), ..reset_claims() };
        assert_eq!(*tokens.code(&claims).unwrap(), "00776311");
        assert!(tokens.verify_code(&claims, "00776311"));
        for wrong in ["", "776311", "00776312", "007763110", " 00776311", "0077 6311", "+0776311", "٠٠٧٧٦٣١١", "mdt_"]
        {
            assert!(!tokens.verify_code(&claims, wrong), "{wrong}");
        }
    }

    #[test]
    fn codes_have_the_digits_of_their_purpose() {
        let tokens = tokens(&[OLD]);
        let mut zero_first = 0;
        for epoch in 0..500 {
            for (claims, digits) in [(reset_claims(), 8), (verification_claims(), 6)] {
                let token = TokenId::from_bytes([u8::try_from(epoch % 251).unwrap(); 16]);
                let code = tokens.code(&TokenClaims { token, ..claims }).unwrap();
                assert_eq!(code.len(), digits);
                assert!(code.bytes().all(|byte| byte.is_ascii_digit()));
                zero_first += usize::from(code.starts_with('0'));
            }
        }
        assert!((50..150).contains(&zero_first), "{zero_first} of 1000 begin with 0");
    }

    #[test]
    fn an_unknown_address_gets_no_path() {
        assert!(tokens(&[OLD]).path(&TokenClaims { user: None, ..reset_claims() }).is_none());
    }

    #[test]
    fn a_link_is_taken_in_one_spelling_only() {
        let (token, secret) = parse_link(LINK).unwrap();
        assert_eq!(token, reset_claims().token);
        assert!(tokens(&[OLD]).verify_link(&reset_claims(), &secret));
        let body = &LINK[LINK_PREFIX.len()..];
        for text in [
            String::new(),
            LINK_PREFIX.to_owned(),
            body.to_owned(),
            format!("mds_{body}"),
            format!("MDT_{body}"),
            LINK[..67].to_owned(),
            format!("{LINK}A"),
            format!("{LINK}="),
            format!(" {}", &LINK[..67]),
            format!("{}=", &LINK[..67]),
            format!("{}+", &LINK[..67]),
            format!("{}\n", &LINK[..67]),
            format!("{}é", &LINK[..66]),
            format!("mdté{}", &LINK[5..]),
            LINK.repeat(1_000),
        ] {
            assert!(parse_link(&text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_user_segment_is_taken_in_one_spelling_only() {
        assert_eq!(parse_user_segment("BAQEBAQEBAQEBAQEBAQEBA"), Some(UserId::from_bytes([4; 16])));
        for text in [
            "",
            "BAQEBAQEBAQEBAQEBAQEBB",
            "BAQEBAQEBAQEBAQEBAQEBA==",
            "BAQEBAQEBAQEBAQEBAQEB",
            "BAQEBAQEBAQEBAQEBAQE+A",
        ] {
            assert_eq!(parse_user_segment(text), None, "{text}");
        }
    }

    #[test]
    fn debug_shows_no_secret_and_no_address() {
        let tokens = tokens(&[OLD]);
        let shown = format!("{tokens:?} {:?} {:?}", reset_claims(), presented(LINK));
        assert!(shown.contains("[REDACTED]"));
        for canary in ["a@example.com", &LINK[26..36], "94852332", "[1, 1", "121, 122", "797a"] {
            assert!(!shown.contains(canary), "{canary} in {shown}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(
            text in ".{0,80}",
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            body in "[A-Za-z0-9_=+/-]{60,66}",
        ) {
            let _ = (parse_link(&text), parse_user_segment(&text));
            let text = String::from_utf8_lossy(&bytes);
            let _ = (parse_link(&text), parse_user_segment(&text));
            let wire = format!("{LINK_PREFIX}{body}");
            if let Some((token, secret)) = parse_link(&wire) {
                let raw = [token.as_bytes().as_slice(), secret.0.as_slice()].concat();
                prop_assert_eq!(URL_SAFE_NO_PAD.encode(raw), body);
            }
        }

        #[test]
        fn a_guess_never_fits(guess in any::<[u8; 32]>(), digits in "[0-9]{8}") {
            let (tokens, claims) = (tokens(&[OLD]), reset_claims());
            prop_assert!(!tokens.verify_link(&claims, &Presented(Zeroizing::new(guess))));
            prop_assert_eq!(tokens.verify_code(&claims, &digits), digits == "94852332");
        }
    }
}
