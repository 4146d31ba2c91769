//! Message budget: how soon the same message may be asked for again, and how many messages an address is sent.

use std::borrow::Cow;
use std::time::Duration;

use majordomo_model::{Channel, Failure, Personal, Signal, Timestamp, TokenId, TokenPurpose, UserId};
use serde::{Deserialize, Serialize};

use super::common_budget::{Bounds, Common, Due, Spending, TextLimits, fits};
use super::flow::Told;
use super::fresh_token::verification_signals;
use crate::delivery_end;
use crate::keys::Keyring;
use crate::storage::{
    Answered, Check, DeliveryState, Lookup, MessagesRow, ReadError, ReadView, TokenEnd, TokenRow, Write,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The highest limit: a row holds an instant for each message.
const MOST: u32 = 100;

/// How many messages may be asked for. Nobody is refused for it: whoever asks in vain is answered as ever, so that the
/// limits tell nothing about who is a user and who is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MessageLimits {
    /// For how long a request for a verification or a reset, sent again with the same identifier, is answered with the
    /// challenge that it was answered with before, and sends nothing; never longer than that challenge's code works.
    /// Default 60 seconds: so long a message may take, and a second one would make the first one's code worthless.
    /// Zero switches it off.
    pub cool_down: Duration,
    /// The most messages to one address within any hour, of all that somebody else could have asked for by typing the
    /// address or its user's name; resets are counted by themselves. Mail addresses that commonly reach one mailbox, such
    /// as `ada+shop@example.com` and `a.da@example.com`, are one. Default 5, at most 100. `None` is no limit.
    pub per_hour: Option<u32>,
    /// The same within any 24 hours. Default 10.
    pub per_day: Option<u32>,
    /// What bounds text messages to many numbers together.
    pub texts: TextLimits,
    /// The most mails an hour in all: so many at once, and as many again in each hour, one by one. Default `None`, no
    /// limit: whoever reaches one keeps everybody else from mails. Else 1 to 1,000,000.
    pub mails_per_hour: Option<u32>,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            cool_down: Duration::from_secs(60),
            per_hour: Some(5),
            per_day: Some(10),
            texts: TextLimits::default(),
            mails_per_hour: None,
        }
    }
}

impl MessageLimits {
    /// Every fault, as sentences for whoever wrote it.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.cool_down > DAY {
            faults.push("policy.messages.cool_down: 24 hours at most".to_owned());
        }
        for (name, limit) in [("per_hour", self.per_hour), ("per_day", self.per_day)] {
            if limit.is_some_and(|limit| !(1..=MOST).contains(&limit)) {
                faults.push(format!("policy.messages.{name}: 1 to {MOST}, or none for no limit"));
            }
        }
        if !fits(self.mails_per_hour) {
            faults.push("policy.messages.mails_per_hour: 1 to 1000000, or none for no limit".to_owned());
        }
        faults.extend(self.texts.faults());
        faults
    }

    const fn has_budget(&self) -> bool {
        self.per_hour.is_some() || self.per_day.is_some()
    }

    /// Whether one more message may follow those.
    fn admits(&self, started: &[Timestamp], now: Timestamp) -> bool {
        let has_room = |limit: Option<u32>, span| {
            let within = started.iter().filter(|at| is_within(**at, span, now)).count();
            limit.is_none_or(|limit| within < limit as usize)
        };
        has_room(self.per_hour, HOUR) && has_room(self.per_day, DAY)
    }
}

/// Whether an instant lies in the span that ends now. One in the future, which a clock that was wrong has left, does
/// not: nobody waits until then.
fn is_within(at: Timestamp, span: Duration, now: Timestamp) -> bool {
    at <= now && now < at.plus(span)
}

/// Where what is remembered of messages is kept, and what it is: as it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Remembered {
    key: [u8; 32],
    row: Option<MessagesRow>,
}

impl Remembered {
    pub(super) fn read(view: &ReadView, key: [u8; 32]) -> Result<Self, ReadError> {
        Ok(Self { key, row: view.messages(&key)? })
    }

    /// What the same request was answered, while it is to be answered the same: whatever became of that token since,
    /// or its use would show.
    pub(super) fn answered(&self, now: Timestamp, limits: &MessageLimits) -> Option<Answered> {
        let answered = self.row.as_ref()?.answered?;
        (is_within(answered.at, limits.cool_down, now) && now < answered.code_expires_at).then_some(answered)
    }

    /// Remembers an answer; nothing where there is no cool-down.
    pub(super) fn answer(&self, answered: Answered, limits: &MessageLimits) -> Changes {
        if limits.cool_down.is_zero() {
            return Changes::default();
        }
        let expires_at = answered.at.plus(limits.cool_down).min(answered.code_expires_at);
        self.change(MessagesRow { answered: Some(answered), started: Vec::new(), expires_at })
    }

    /// Whether one more message may be started now, and what remembers it if one is `due`. If none is, or none may be,
    /// the row is written all the same, as it was.
    pub(super) fn spend(&self, due: bool, now: Timestamp, limits: &MessageLimits) -> Allowance {
        if !limits.has_budget() {
            return Allowance { is_granted: true, ..Allowance::default() };
        }
        let counted = self.row.iter().flat_map(|row| row.started.iter().copied());
        let mut started: Vec<_> = counted.filter(|at| is_within(*at, DAY, now)).collect();
        let is_granted = limits.admits(&started, now);
        let row = match &self.row {
            Some(row) if !(due && is_granted) => row.clone(),
            _ => {
                started.extend((due && is_granted).then_some(now));
                let most = limits.per_hour.max(limits.per_day).unwrap_or_default() as usize;
                started.drain(..started.len().saturating_sub(most));
                MessagesRow { answered: None, started, expires_at: now.plus(DAY) }
            }
        };
        Allowance { is_granted, changes: self.change(row), ..Allowance::default() }
    }

    /// Under the check that nobody changed it meanwhile, so that of any number of requests at once each counts.
    fn change(&self, row: MessagesRow) -> Changes {
        Changes {
            check: Some(Check::Messages(self.key, self.row.clone())),
            write: Some(Write::PutMessages(self.key, Box::new(row))),
        }
    }
}

/// A change of what is remembered, with the check that it needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    check: Option<Check>,
    write: Option<Write>,
}

impl Changes {
    pub(super) fn enter(self, checks: &mut Vec<Check>, writes: &mut Vec<Write>) {
        checks.extend(self.check);
        writes.extend(self.write);
    }
}

/// Where what bounds the messages to an address is kept.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    address: [u8; 32],
    bounds: Bounds,
}

impl Destination {
    /// For what everything but a reset has sent to an address.
    pub(super) fn of(keys: &Keyring, channel: Channel, canonical: &str) -> Self {
        let bounds = Bounds::of(keys, channel, Some(canonical), false);
        Self { address: budget(keys, channel, canonical), bounds }
    }
}

/// What bounds the messages to an address: those that went there, and those that went to others.
#[derive(Clone, Debug, Default)]
pub(super) struct MessageBudget {
    address: Remembered,
    common: Common,
}

impl MessageBudget {
    pub(super) fn read(view: &ReadView, destination: &Destination) -> Result<Self, ReadError> {
        let address = Remembered::read(view, destination.address)?;
        Ok(Self { address, common: Common::read(view, &destination.bounds)? })
    }

    /// Whether one more message may be started now, and what remembers it if one is due. If none is, or none may be, the
    /// same rows are written, as they were.
    pub(super) fn spend(&self, due: Due, now: Timestamp, limits: &MessageLimits) -> Allowance {
        let (texts, mails_per_hour) = (&limits.texts, limits.mails_per_hour);
        let has_room = self.common.has_room(texts, mails_per_hour, now);
        let of_address = self.address.spend(due.is_due() && has_room, now, limits);
        // What is not sent anyway neither opens nor closes the breaker.
        let wanted = if has_room && of_address.is_granted { due } else { Due::Nothing };
        let common = self.common.spend(wanted, now, (texts, mails_per_hour));
        let is_granted = has_room && of_address.is_granted && common.is_sent;
        match is_granted {
            true => Allowance { common, ..of_address },
            false => Allowance { is_granted, common, ..self.address.spend(false, now, limits) },
        }
    }
}

/// Whether a message may be sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowance {
    pub(super) is_granted: bool,
    changes: Changes,
    common: Spending,
}

impl Allowance {
    /// What remembers it.
    pub(super) fn enter(self, checks: &mut Vec<Check>, writes: &mut Vec<Write>) {
        self.changes.enter(checks, writes);
        checks.extend(self.common.checks);
        writes.extend(self.common.writes);
    }

    /// The token of an address that a user claims, as it is stored, and what is told: the message that proves it goes
    /// out, or if another user has proven it the one that tells that user. Then the token's row is written all the
    /// same, so that a taken address looks like a free one; nothing delivers it.
    pub(super) fn claim(
        &self,
        user: UserId,
        owner: Option<UserId>,
        token: TokenRow,
        address: &Personal,
        supersedes: Option<TokenId>,
    ) -> (TokenRow, Vec<Told>) {
        let Some(owner) = owner else { return self.verify(user, token, address, supersedes) };
        let channel = delivery_end::channel(token.purpose).filter(|_| self.is_granted);
        let taken = channel.map(|channel| Signal::AddressTaken { owner, address: address.clone(), channel });
        (token.withheld(), taken.into_iter().chain(self.common.told.clone()).map(Told::from).collect())
    }

    /// The same for an address that nobody has proven.
    pub(super) fn verify(
        &self,
        user: UserId,
        token: TokenRow,
        address: &Personal,
        supersedes: Option<TokenId>,
    ) -> (TokenRow, Vec<Told>) {
        let [generated, start] = verification_signals(user, &token, address, supersedes);
        let (token, delivery) = self.dispatch(token, start);
        (token, std::iter::once(generated.into()).chain(delivery).collect())
    }

    /// The token of a message that is due, as it is stored, and what is told of its delivery: that it starts; where
    /// the budget is spent, that it ended, too. Such a token is worth nothing, since its link is sent to nobody: it can
    /// not be guessed at either.
    pub(super) fn dispatch(&self, token: TokenRow, start: Signal) -> (TokenRow, Vec<Told>) {
        let breaker = self.common.told.clone().map(Told::from);
        let started = Told::of(start, token.delivery);
        if self.is_granted {
            return (token, breaker.into_iter().chain([started]).collect());
        }
        let token = TokenRow { end: Some(TokenEnd::Superseded), delivered: DeliveryState::Failed, ..token };
        let reason = Failure::MessageLimitReached;
        let ended = delivery_end::failed(&token, reason.error_type(), reason);
        let ended = ended.map(|end| Told::of(end, token.delivery));
        (token, breaker.into_iter().chain([started]).chain(ended).collect())
    }
}

/// What a request for a message names, as it was typed.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// What the message is for.
    pub(super) purpose: TokenPurpose,
    /// The kind of identifier.
    pub(super) kind: &'static str,
    /// The identifier in its canonical form.
    pub(super) text: String,
}

impl Asked {
    /// What its cool-down is kept under.
    pub(super) fn cool_down(&self, keys: &Keyring) -> [u8; 32] {
        keys.identifier_hash(&["cool_down", self.purpose.as_str(), self.kind].join("/"), &self.text)
    }

    /// What messages are counted under that go to this address: resets apart from what proves it, so that nobody who
    /// registers with it again and again keeps its owner from a reset. If there is none, none go, and something is kept
    /// under what was typed.
    pub(super) fn destination(&self, keys: &Keyring, channel: Channel, address: Option<&str>) -> Destination {
        let bounds = Bounds::of(keys, channel, address, self.purpose.is_reset());
        Destination { address: self.budget(keys, channel, address), bounds }
    }

    pub(super) fn budget(&self, keys: &Keyring, channel: Channel, address: Option<&str>) -> [u8; 32] {
        let nowhere = || keys.identifier_hash(&["message_budget", "nowhere", self.kind].join("/"), &self.text);
        let spent = |address: &str| match self.purpose.is_reset() {
            true => {
                let kind = ["message_budget", "reset", channel.as_str()].join("/");
                keys.identifier_hash(&kind, &mailbox(channel, address))
            }
            false => budget(keys, channel, address),
        };
        address.map_or_else(nowhere, spent)
    }
}

/// What the messages to an address are counted under, but for resets.
fn budget(keys: &Keyring, channel: Channel, canonical: &str) -> [u8; 32] {
    keys.identifier_hash(&["message_budget", channel.as_str()].join("/"), &mailbox(channel, canonical))
}

/// What addresses have in common that commonly reach one mailbox: the local part up to a plus sign, without dots. They
/// stay addresses of their own in everything but how many messages they are sent.
fn mailbox(channel: Channel, canonical: &str) -> Cow<'_, str> {
    let Some((local, domain)) = canonical.rsplit_once('@').filter(|_| channel == Channel::Email) else {
        return Cow::Borrowed(canonical);
    };
    let name = local.split_once('+').map_or(local, |(name, _)| name).replace('.', "");
    Cow::Owned([name.as_str(), domain].join("@"))
}

/// What may be remembered, of every shape.
#[cfg(test)]
pub(super) mod cases {
    use proptest::prelude::*;

    use super::super::common_budget::cases::common;
    use super::*;

    pub(in super::super) fn budget(now: Timestamp) -> impl Strategy<Value = MessageBudget> {
        (remembered(now), common(now)).prop_map(|(address, common)| MessageBudget { address, common })
    }

    impl MessageBudget {
        pub(in super::super) fn is_text(&self) -> bool {
            self.common.is_text()
        }
    }

    pub(in super::super) fn remembered(now: Timestamp) -> impl Strategy<Value = Remembered> {
        let micros = move |seconds: i64| Timestamp::from_micros(now.as_micros() + seconds * 1_000_000);
        let instant = move || (-90_000_i64..100).prop_map(micros);
        let answered = (-90_i64..90, any::<[u8; 16]>()).prop_map(move |(ago, challenge)| Answered {
            at: micros(ago),
            challenge: TokenId::from_bytes(challenge),
            expires_at: micros(ago).plus(DAY),
            code_expires_at: micros(ago + 600),
        });
        let row = (prop::option::of(answered), prop::collection::vec(instant(), 0..12), instant());
        let row = row.prop_map(|(answered, started, expires_at)| MessagesRow { answered, started, expires_at });
        prop::option::of(row).prop_map(|row| Remembered { key: [7; 32], row })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    fn after(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    /// Asks for a message, and remembers what came of it.
    fn ask(remembered: &mut Remembered, now: Timestamp, limits: &MessageLimits) -> bool {
        let allowance = remembered.spend(true, now, limits);
        if let Some(Write::PutMessages(_, row)) = allowance.changes.write {
            remembered.row = Some(*row);
        }
        allowance.is_granted
    }

    #[test]
    fn the_budget_is_exact_in_any_hour_and_any_day_and_comes_back() {
        let (limits, mut remembered) = (MessageLimits::default(), Remembered::default());
        let mut granted = |seconds| ask(&mut remembered, after(seconds), &limits);
        assert_eq!([0, 1, 2, 3, 4, 5, 3_599].map(&mut granted), [true, true, true, true, true, false, false]);
        assert_eq!([3_600, 3_600, 3_601].map(&mut granted), [true, false, true], "as each of them is an hour old");
        assert_eq!([8_000, 8_001, 8_002, 8_003, 30_000].map(&mut granted), [true, true, true, false, false]);
        assert_eq!([86_399, 86_400, 86_400].map(&mut granted), [false, true, false], "as each of them is a day old");
    }

    #[test]
    fn what_is_not_granted_or_not_due_leaves_the_row_as_it_was() {
        let (limits, mut remembered) = (MessageLimits::default(), Remembered::default());
        let fresh = remembered.spend(false, START, &limits);
        let Some(Write::PutMessages(_, row)) = fresh.changes.write else { panic!("no row") };
        assert_eq!((row.started.len(), row.expires_at), (0, START.plus(DAY)));
        assert!((0..5).all(|second| ask(&mut remembered, after(second), &limits)));
        let before = remembered.row.clone();
        for due in [true, false] {
            let changes = remembered.spend(due, after(9), &limits).changes;
            assert!(matches!(changes.check, Some(Check::Messages(_, row)) if row == before));
            assert!(matches!(changes.write, Some(Write::PutMessages(_, row)) if before.as_ref() == Some(&*row)));
        }
    }

    #[test]
    fn the_same_answer_is_given_for_a_minute_and_never_longer_than_its_code_works() {
        let limits = MessageLimits::default();
        let challenge = TokenId::from_bytes([3; 16]);
        for (code, until) in [(600, 60), (20, 20)] {
            let answered = Answered { at: START, challenge, expires_at: after(900), code_expires_at: after(code) };
            let changes = Remembered::default().answer(answered, &limits);
            let Some(Write::PutMessages(_, row)) = changes.write else { panic!("no row") };
            assert_eq!(row.expires_at, after(until));
            let remembered = Remembered { row: Some(*row), ..Remembered::default() };
            assert_eq!(remembered.answered(after(until - 1), &limits), Some(answered));
            assert_eq!(remembered.answered(after(until), &limits), None);
        }
    }

    #[test]
    fn a_clock_that_was_ahead_locks_nobody_out() {
        let (limits, mut remembered) = (MessageLimits::default(), Remembered::default());
        let years = START.plus(DAY * 3_650);
        while ask(&mut remembered, years, &limits) {}
        assert!(ask(&mut remembered, START, &limits), "what lies in the future does not count");
        let challenge = TokenId::from_bytes([3; 16]);
        let answered = Answered { at: years, challenge, expires_at: years.plus(DAY), code_expires_at: years.plus(DAY) };
        let row = MessagesRow { answered: Some(answered), ..MessagesRow::default() };
        let remembered = Remembered { row: Some(row), ..Remembered::default() };
        assert_eq!(remembered.answered(START, &limits), None);
    }

    #[test]
    fn each_part_can_be_switched_off_and_faults_are_named() {
        let none =
            MessageLimits { cool_down: Duration::ZERO, per_hour: None, per_day: None, ..MessageLimits::default() };
        let mut remembered = Remembered::default();
        assert!((0..1_000).all(|_| ask(&mut remembered, START, &none)));
        let answered =
            Answered { at: START, challenge: TokenId::new(), expires_at: after(9), code_expires_at: after(9) };
        assert!(remembered.row.is_none() && remembered.answer(answered, &none).write.is_none());
        let hourly = MessageLimits { per_day: None, ..MessageLimits::default() };
        let granted = (0..200).filter(|hour| ask(&mut remembered, after(hour * 3_600), &hourly));
        assert_eq!(granted.count(), 200);
        assert_eq!(remembered.row.unwrap().started.len(), 5, "no more is kept than counts");
        let texts = TextLimits { per_prefix: Some(0), per_day: Some(1_000_001), ..TextLimits::default() };
        let (cool_down, per_hour, per_day, mails_per_hour) = (DAY * 2, Some(0), Some(101), Some(0));
        let wrong = MessageLimits { cool_down, per_hour, per_day, texts, mails_per_hour };
        assert_eq!((none.faults().len(), wrong.faults().len()), (0, 6), "{:?}", wrong.faults());
    }

    #[test]
    fn what_is_asked_for_is_told_apart_by_purpose_channel_and_kind() {
        let keys = Keyring::ephemeral().unwrap();
        let asked = |purpose, kind| Asked { purpose, kind, text: "ada@example.com".to_owned() };
        let all = [
            asked(TokenPurpose::VerifyEmail, "address"),
            asked(TokenPurpose::ResetByEmail, "email"),
            asked(TokenPurpose::ResetByPhone, "email"),
            asked(TokenPurpose::ResetByEmail, "username"),
        ];
        let hashes: std::collections::BTreeSet<_> = all.iter().map(|asked| asked.cool_down(&keys)).collect();
        assert_eq!(hashes.len(), all.len());
        let budgets = all.each_ref().map(|asked| asked.budget(&keys, Channel::Email, Some("ada@example.com")));
        let [proof, resets @ ..] = budgets;
        assert_eq!(proof, budget(&keys, Channel::Email, "ada@example.com"), "one an address");
        assert!(resets.iter().all(|key| *key == resets[0] && *key != proof), "and one for resets");
        assert_ne!(budgets[0], budget(&keys, Channel::Phone, "ada@example.com"));
        assert_ne!(budgets[0], all[0].budget(&keys, Channel::Email, None));
    }

    #[test]
    fn addresses_that_commonly_reach_one_mailbox_are_one_and_numbers_stay_what_they_are() {
        for (address, expected) in [
            ("ada@example.com", "ada@example.com"),
            ("a.d.a+shop+2@mail.example.com", "ada@mail.example.com"),
            ("+ada@example.com", "@example.com"),
        ] {
            assert_eq!(mailbox(Channel::Email, address), expected);
        }
        assert_eq!(mailbox(Channel::Phone, "+447911123456"), "+447911123456");
        let keys = Keyring::ephemeral().unwrap();
        for purpose in [TokenPurpose::VerifyEmail, TokenPurpose::ResetByEmail] {
            let asked = Asked { purpose, kind: "email", text: String::new() };
            let of = |address| asked.budget(&keys, Channel::Email, Some(address));
            assert_eq!(of("ada@example.com"), of("a.da+1@example.com"));
            assert_ne!(of("ada@example.com"), of("ada@example.org"));
        }
    }

    proptest! {
        #[test]
        fn however_messages_are_asked_for_no_span_holds_more_than_its_limit(
            gaps in prop::collection::vec(0_u64..4_000, 1..80),
            (per_hour, per_day) in (prop::option::of(1_u32..6), prop::option::of(1_u32..12)),
        ) {
            let limits = MessageLimits { per_hour, per_day, ..MessageLimits::default() };
            let (mut remembered, mut now, mut granted) = (Remembered::default(), START, Vec::new());
            for gap in gaps {
                now = now.plus(Duration::from_secs(gap));
                let within = |span| granted.iter().filter(|at: &&Timestamp| now < at.plus(span)).count();
                let below = |limit: Option<u32>, span| limit.is_none_or(|limit| within(span) < limit as usize);
                let expected = below(per_hour, HOUR) && below(per_day, DAY);
                let is_granted = ask(&mut remembered, now, &limits);
                prop_assert_eq!(is_granted, expected);
                granted.extend(is_granted.then_some(now));
            }
        }
    }
}
