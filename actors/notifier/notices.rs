//! Notices that could be caused without end: no user is sent more of them in a day than are read.

use std::time::Duration;

use majordomo_model::{Channel, MessageKind, Timestamp, UserId};

use super::clients::{self, Acquaintance, Client};
use super::due::{Due, unanswered};
use super::facts::Detail;
use super::whereto::Whereto;
use super::{Notifier, Outcome};
use crate::subscriber::Effect;

/// How many of one sort a user is sent within [`SPAN`].
const MOST: usize = 10;
const SPAN: Duration = Duration::from_secs(24 * 3_600);
/// The key of a user's notices in the projection starts with this.
const NOTICES: &[u8] = b"notices/";
const INSTANT_BYTES: usize = 8;

/// Notices that are bounded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// What can be undone, or concerns a lock, by text message, which costs. Of mails they are not bounded.
    Text,
    /// What harms nobody. Bounded apart, so that it uses up nothing of the others.
    Harmless,
}

impl Sort {
    /// Nothing for notices without a bound of this kind: that an address is taken is bounded where it is told.
    const fn of(kind: MessageKind, channel: Channel) -> Option<Self> {
        match (kind, channel) {
            (MessageKind::AddressTaken, _) => None,
            (MessageKind::UsernameChanged | MessageKind::NewSignIn, _) => Some(Self::Harmless),
            (_, Channel::Phone) => Some(Self::Text),
            (_, Channel::Email) => None,
        }
    }

    fn key(self, user: UserId) -> Vec<u8> {
        [NOTICES, user.as_bytes(), &[self as u8]].concat()
    }
}

/// What is remembered of the notices of a sort once one more is sent.
pub(super) enum Room {
    /// There is none.
    None,
    /// There is; this remembers it.
    Some(Option<Effect>),
}

/// Whether a user may be sent one more notice.
pub(super) fn room(kind: MessageKind, channel: Channel, user: UserId, due: Due<'_>) -> Result<Room, Outcome> {
    let Some(sort) = Sort::of(kind, channel) else { return Ok(Room::Some(None)) };
    let key = sort.key(user);
    let stored = due.context.projection(&key).map_err(unanswered)?.unwrap_or_default();
    Ok(match one_more(&stored, due.context.now()) {
        Some(value) => Room::Some(Some(Effect::Project { key, value })),
        None => Room::None,
    })
}

/// The instants of the notices of the last day with one more, if that may be.
fn one_more(stored: &[u8], now: Timestamp) -> Option<Vec<u8>> {
    let instants = stored.chunks(INSTANT_BYTES).filter_map(|bytes| bytes.try_into().ok());
    let counted = instants.map(|bytes| Timestamp::from_micros(i64::from_be_bytes(bytes)));
    // One in the future was left by a clock that was wrong.
    let counted: Vec<_> = counted.filter(|at| *at <= now && now < at.plus(SPAN)).collect();
    (counted.len() < MOST).then(|| counted.iter().chain([&now]).flat_map(|at| at.as_micros().to_be_bytes()).collect())
}

/// Everything that is remembered of a user.
pub(super) fn forgotten(user: UserId) -> Vec<Effect> {
    let keys = [clients::key(user), Sort::Text.key(user), Sort::Harmless.key(user)];
    keys.into_iter().map(|key| Effect::Forget { key }).collect()
}

impl Notifier {
    /// Remembers from where a user signed in, and tells them if they have not before, unless it is the very first time.
    pub(super) async fn sign_in(&self, user: UserId, due: Due<'_>) -> Result<Outcome, Outcome> {
        let Some(client) = Client::of(&due.envelope.context) else { return Ok(Outcome::done()) };
        let key = clients::key(user);
        let stored = due.context.projection(&key).map_err(unanswered)?;
        let (value, is_news) = match clients::meet(stored, &client, user) {
            Acquaintance::Known => return Ok(Outcome::done()),
            Acquaintance::First(value) => (value, false),
            Acquaintance::New(value) => (value, true),
        };
        let mut outcome = Outcome::done();
        if is_news && !due.context.is_rebuilding() {
            let detail = Detail::SignIn { device: client.device.as_deref(), network: client.network.as_deref() };
            let told = self.notify(MessageKind::NewSignIn, user, Whereto::Primary, detail, None, due).await;
            outcome = told.unwrap_or_else(|outcome| outcome);
        }
        if let Outcome::Done(effects) = &mut outcome {
            effects.push(Effect::Project { key, value });
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_day_have_room_and_as_each_is_a_day_old_one_more() {
        let start = Timestamp::from_micros(1_800_000_000_000_000);
        let at = |seconds: u64| start.plus(Duration::from_secs(seconds));
        let mut stored = Vec::new();
        for second in 0..10 {
            stored = one_more(&stored, at(second)).unwrap();
        }
        assert_eq!(stored.len(), 10 * INSTANT_BYTES);
        assert_eq!((one_more(&stored, at(10)), one_more(&stored, at(86_399))), (None, None));
        stored = one_more(&stored, at(86_400)).unwrap();
        assert_eq!((stored.len(), one_more(&stored, at(86_400))), (10 * INSTANT_BYTES, None));
        assert!(one_more(&stored, start).is_some(), "what lies in the future does not count");
    }

    #[test]
    fn what_harms_nobody_uses_up_nothing_of_what_does() {
        let user = UserId::new();
        let of = |kind, channel| Sort::of(kind, channel).map(|sort| sort.key(user));
        let harmless = of(MessageKind::UsernameChanged, Channel::Phone);
        assert!(harmless.is_some() && harmless == of(MessageKind::NewSignIn, Channel::Email));
        let texts = of(MessageKind::PasswordChanged, Channel::Phone);
        assert!(texts.is_some() && texts != harmless && texts == of(MessageKind::AccountLocked, Channel::Phone));
        assert_eq!(of(MessageKind::PasswordChanged, Channel::Email), None, "each has a link that undoes it");
        assert_eq!(of(MessageKind::AddressTaken, Channel::Phone), None, "bounded by its flow");
    }
}
