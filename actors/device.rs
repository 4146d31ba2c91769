//! Known devices: what a client keeps of a login, so that a lock on the account does not keep it out.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use majordomo_model::{Timestamp, UserId};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::keys::{KeyId, Keyring, Purpose};

const PREFIX: &str = "mdd_";
const RAW_LENGTH: usize = 16 + 8 + 8 + 16 + 8 + 32;
const WIRE_LENGTH: usize = PREFIX.len() + (RAW_LENGTH * 4).div_ceil(3);

/// A device from which a user signed in. Nothing is stored of it: what the client keeps is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Who signed in.
    pub(crate) user: UserId,
    /// The user's credential epoch then: a new password makes every device unknown.
    pub(crate) epoch: u64,
    /// When.
    pub(crate) issued_at: Timestamp,
    /// Tells this device from the user's others, for as long as it stays known.
    pub(crate) name: [u8; 16],
}

impl Device {
    /// What the client keeps: `mdd_`, then user, epoch, time, name, the master key's id and HMAC-SHA256 over them all, in
    /// base64url without padding. `None` if the keyring lacks the key, which it does not.
    pub(crate) fn token(&self, keys: &Keyring) -> Option<Zeroizing<String>> {
        let key = keys.current();
        let tag = self.authenticate(keys, key)?;
        let mut raw = Zeroizing::new(Vec::with_capacity(RAW_LENGTH));
        raw.extend_from_slice(self.user.as_bytes());
        raw.extend_from_slice(&self.epoch.to_be_bytes());
        raw.extend_from_slice(&self.issued_at.as_micros().to_be_bytes());
        raw.extend_from_slice(&self.name);
        raw.extend_from_slice(key.as_bytes());
        raw.extend_from_slice(&*tag);
        let mut wire = Zeroizing::new(String::with_capacity(WIRE_LENGTH));
        wire.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(raw.as_slice(), &mut wire);
        Some(wire)
    }

    /// The device that made this, if one of these keys vouches for it. Whether it is still known is for its user's epoch
    /// and the clock to say.
    pub(crate) fn presented(keys: &Keyring, wire: &str) -> Option<Self> {
        if wire.len() != WIRE_LENGTH {
            return None;
        }
        let raw = Zeroizing::new(URL_SAFE_NO_PAD.decode(wire.strip_prefix(PREFIX)?).ok()?);
        let (user, rest) = raw.split_first_chunk::<16>()?;
        let (epoch, rest) = rest.split_first_chunk::<8>()?;
        let (issued_at, rest) = rest.split_first_chunk::<8>()?;
        let (name, rest) = rest.split_first_chunk::<16>()?;
        let (key, tag) = rest.split_first_chunk::<8>()?;
        let device = Self {
            user: UserId::from_bytes(*user),
            epoch: u64::from_be_bytes(*epoch),
            issued_at: Timestamp::from_micros(i64::from_be_bytes(*issued_at)),
            name: *name,
        };
        let expected = device.authenticate(keys, KeyId::from_bytes(*key))?;
        bool::from(expected.ct_eq(tag)).then_some(device)
    }

    fn authenticate(&self, keys: &Keyring, key: KeyId) -> Option<Zeroizing<[u8; 32]>> {
        let (epoch, issued_at) = (self.epoch.to_be_bytes(), self.issued_at.as_micros().to_be_bytes());
        let fields: [&[u8]; 5] = [self.user.as_bytes(), &epoch, &issued_at, &self.name, key.as_bytes()];
        Some(keys.derive(key, Purpose::Device)?.authenticate(&fields))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];

    fn keys(keys: &[[u8; 32]]) -> Keyring {
        Keyring::from_keys(keys.to_vec()).unwrap()
    }

    fn device() -> Device {
        let issued_at = Timestamp::from_micros(1_700_000_000_000_000);
        Device { user: UserId::from_bytes([4; 16]), epoch: 7, issued_at, name: [5; 16] }
    }

    #[test]
    fn what_was_issued_is_known_again_also_after_a_rotation_and_under_no_other_key() {
        let wire = device().token(&keys(&[OLD])).unwrap();
        assert_eq!(wire.len(), WIRE_LENGTH);
        assert_eq!(Device::presented(&keys(&[OLD]), &wire), Some(device()));
        assert_eq!(Device::presented(&keys(&[NEW, OLD]), &wire), Some(device()));
        assert_eq!(Device::presented(&keys(&[NEW]), &wire), None);
    }

    #[test]
    fn a_change_of_any_character_makes_it_unknown() {
        let keys = keys(&[OLD]);
        let wire = device().token(&keys).unwrap();
        for place in 0..wire.len() {
            for other in ["A", "B", "_", "é", ""] {
                let changed = [&wire[..place], other, &wire[place + 1..]].concat();
                if changed != *wire {
                    assert_eq!(Device::presented(&keys, &changed), None, "{place} {other}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_presented_nothing_panics(text in ".{0,200}", tail in "[A-Za-z0-9_-]{118}") {
            let keys = keys(&[OLD]);
            prop_assert_eq!(Device::presented(&keys, &text), None);
            prop_assert_eq!(Device::presented(&keys, &[PREFIX, &tail].concat()), None);
        }
    }
}
