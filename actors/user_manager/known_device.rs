//! The known device: one that somebody signed in from before, as whom they sign in again.

use majordomo_model::{Command, DeviceToken, Flow, Identifier, UserId};

use super::services::Services;
use super::throttle::Subject;
use crate::device::Device;
use crate::keys::Keyring;
use crate::storage::{Lookup, Unreadable, UserRow};

/// A device that its user signed in from, under the password that is still theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownDevice(Device);

impl KnownDevice {
    /// What attempts from it are counted under.
    pub(super) fn text(self) -> String {
        self.0.name.iter().fold("device/".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// What its own failures are counted under.
    pub(super) fn subject(self, keys: &Keyring) -> [u8; 32] {
        keys.identifier_hash("device", &self.text())
    }

    /// Whose it is.
    pub(super) const fn user(self) -> UserId {
        self.0.user
    }

    /// Whether it is this user's, as they are now.
    pub(super) fn is_of(self, user: &UserRow) -> bool {
        self.0.user == user.id && self.0.epoch == user.epoch
    }
}

/// The device that a command comes from, if it is known to whom the command is about. A device of somebody else is none:
/// with it, whoever has an account would have a budget of guesses at every other.
pub(super) fn known_device<F: Flow>(
    services: &Services,
    command: &Command<F>,
    subject: Option<Subject<'_>>,
) -> Result<Option<KnownDevice>, Unreadable> {
    let presented = command.device.as_ref().and_then(|token| Device::presented(&services.keys, token.expose()));
    let Some((device, subject)) = presented.zip(subject) else { return Ok(None) };
    if services.clock.now() >= device.issued_at.plus(services.policy.device_lifetime) {
        return Ok(None);
    }
    let (device, now) = (KnownDevice(device), services.clock.now());
    let (user, failures) = services.reader.snapshot(|view| {
        let user = match subject {
            Subject::User(user) => view.user(user),
            Subject::Named(typed) => Identifier::guess(typed).map_or(Ok(None), |name| view.user_named(&name)),
        }?;
        Ok((user, view.attempts(&device.subject(&services.keys))?))
    })?;
    // One that was guessed from as often as puts a lock on is as good as stolen.
    let is_spent = failures.is_some_and(|row| row.counted(now) >= u64::from(services.policy.lock_after));
    Ok(Some(device).filter(|device| !is_spent && user.is_some_and(|user| device.is_of(&user))))
}

/// What the client of a login keeps: the same device again, if it was known, so that its failures stay its own.
pub(super) fn issue(
    services: &Services,
    (user, epoch): (UserId, u64),
    known: Option<KnownDevice>,
) -> Result<DeviceToken, getrandom::Error> {
    let mut name = [0; 16];
    match known {
        Some(KnownDevice(device)) => name = device.name,
        None => getrandom::fill(&mut name)?,
    }
    let device = Device { user, epoch, issued_at: services.clock.now(), name };
    Ok(DeviceToken::new(device.token(&services.keys).unwrap_or_default().as_str()))
}
