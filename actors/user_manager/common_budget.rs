//! Common budget: what bounds messages to many addresses together, by the prefix of their numbers, by region and in all.

use std::time::Duration;

use majordomo_model::{Channel, Signal, Timestamp};
use serde::{Deserialize, Serialize};

use super::limits::{Left, Limit};
use super::text_breaker::{Ruling, TextBreaker};
use crate::delivery_end::{count_text, region};
use crate::keys::Keyring;
use crate::storage::{Check, LimitRow, Lookup, ReadError, ReadView, TextEvent, TextsRow, TokenRow, Write};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// The highest limit.
const MOST: u32 = 1_000_000;
/// How many digits at the end of a number its prefix lacks, and how many characters it has at least, `+` included.
const SUFFIX: usize = 4;
const SHORTEST: usize = 8;

/// What bounds text messages to many numbers together, for whoever can type one number into a form can type a thousand.
///
/// Each limit is a budget: so many at once, and as many again in each span, one by one. In any span there are fewer than
/// twice as many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TextLimits {
    /// An hour to numbers that differ in nothing but their last four digits (of short numbers, fewer: seven digits stay).
    /// Resets, which go to proven numbers alone, are counted apart. Default 20. `None` is no limit; else 1 to 1,000,000.
    pub per_prefix: Option<u32>,
    /// An hour in all, of those with a link or code and of notices that a number is taken; other notices have bounds of
    /// their own, by user. Default 1,000. Raise it where more users register.
    pub per_hour: Option<u32>,
    /// A day in all. Default 5,000.
    pub per_day: Option<u32>,
    /// When text messages to a region are withheld because too few of them are answered. `None` is never.
    pub breaker: Option<TextBreaker>,
}

impl Default for TextLimits {
    fn default() -> Self {
        Self {
            per_prefix: Some(20),
            per_hour: Some(1_000),
            per_day: Some(5_000),
            breaker: Some(TextBreaker::default()),
        }
    }
}

impl TextLimits {
    /// No limits at all.
    #[must_use]
    pub const fn none() -> Self {
        Self { per_prefix: None, per_hour: None, per_day: None, breaker: None }
    }

    /// Every fault, as sentences for whoever wrote it.
    pub(super) fn faults(&self) -> Vec<String> {
        let limits = [("per_prefix", self.per_prefix), ("per_hour", self.per_hour), ("per_day", self.per_day)];
        let wrong = limits.into_iter().filter(|(_, limit)| !fits(*limit));
        let faults = wrong.map(|(name, _)| format!("policy.messages.texts.{name}: 1 to {MOST}, or none for no limit"));
        faults.chain(self.breaker.iter().flat_map(TextBreaker::faults)).collect()
    }
}

/// Whether a limit is one, or none.
pub(super) fn fits(limit: Option<u32>) -> bool {
    limit.is_none_or(|limit| (1..=MOST).contains(&limit))
}

/// What many messages have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Text messages to numbers of one prefix, in an hour.
    Prefix,
    /// Text messages in an hour.
    TextsPerHour,
    /// Text messages in a day.
    TextsPerDay,
    /// Mails in an hour.
    MailsPerHour,
}

impl Scope {
    fn limit(self, texts: &TextLimits, mails_per_hour: Option<u32>) -> Option<Limit> {
        let (attempts, per) = match self {
            Self::Prefix => (texts.per_prefix, HOUR),
            Self::TextsPerHour => (texts.per_hour, HOUR),
            Self::TextsPerDay => (texts.per_day, DAY),
            Self::MailsPerHour => (mails_per_hour, HOUR),
        };
        attempts.map(|attempts| Limit { attempts, per })
    }
}

/// Where what bounds a message together with others is kept.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    scopes: Vec<(Scope, [u8; 32])>,
    /// Where the text message goes.
    region: Option<String>,
}

impl Bounds {
    /// Those of messages to an address; if there is none, of such as go nowhere, so that as much is looked at. Resets, which
    /// go to proven numbers alone, have prefixes of their own, so that nobody who registers with the numbers next to one
    /// keeps its owner from a reset.
    pub(super) fn of(keys: &Keyring, channel: Channel, canonical: Option<&str>, is_reset: bool) -> Self {
        let key = |scope, kind: &str, text: &str| (scope, keys.identifier_hash(kind, text));
        let of_prefix = if is_reset { "texts/prefix/reset" } else { "texts/prefix" };
        match channel {
            Channel::Email => Self { scopes: vec![key(Scope::MailsPerHour, "mails/hour", "")], region: None },
            Channel::Phone => Self {
                scopes: vec![
                    key(Scope::Prefix, of_prefix, canonical.map_or("", prefix)),
                    key(Scope::TextsPerHour, "texts/hour", ""),
                    key(Scope::TextsPerDay, "texts/day", ""),
                ],
                region: Some(region(canonical.unwrap_or_default())),
            },
        }
    }
}

/// What a number has in common with those that are next to it.
fn prefix(canonical: &str) -> &str {
    let end = canonical.len().saturating_sub(SUFFIX).max(SHORTEST);
    canonical.get(..end).unwrap_or(canonical)
}

/// Counts that the link or code of a token was used, if a text message brought it.
pub(super) fn answered(token: &TokenRow) -> Option<Write> {
    count_text(token, TextEvent::Answered)
}

/// What a message is to its recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It asks for an answer: by a link or a code.
    Proof,
    /// It tells something.
    Notice,
    /// There is none.
    Nothing,
}

impl Due {
    /// A message that asks for an answer, if there is one at all.
    pub(super) const fn proof(is_due: bool) -> Self {
        if is_due { Self::Proof } else { Self::Nothing }
    }

    /// A message about the claim to an address: to whoever claims it, or to whom it is kept for.
    pub(super) const fn claim(is_taken: bool) -> Self {
        if is_taken { Self::Notice } else { Self::Proof }
    }

    pub(super) const fn is_due(self) -> bool {
        !matches!(self, Self::Nothing)
    }
}

/// What the store says about the messages that a message is bounded together with.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    scopes: Vec<(Scope, [u8; 32], Option<LimitRow>)>,
    region: Option<(String, Option<TextsRow>)>,
}

impl Common {
    pub(super) fn read(view: &ReadView, bounds: &Bounds) -> Result<Self, ReadError> {
        let scopes = bounds.scopes.iter().map(|(scope, key)| Ok((*scope, *key, view.limit(key)?)));
        let scopes = scopes.collect::<Result<_, ReadError>>()?;
        let region = match &bounds.region {
            Some(region) => Some((region.clone(), view.texts(region)?)),
            None => None,
        };
        Ok(Self { scopes, region })
    }

    /// The budgets that there are, with what was spent of each.
    fn budgets<'a>(
        &'a self,
        texts: &'a TextLimits,
        mails_per_hour: Option<u32>,
    ) -> impl Iterator<Item = ([u8; 32], Limit, Option<LimitRow>)> + 'a {
        let limit = move |scope: Scope| scope.limit(texts, mails_per_hour);
        self.scopes.iter().filter_map(move |(scope, key, row)| limit(*scope).map(|limit| (*key, limit, *row)))
    }

    /// Whether there is a place for one more message in every budget.
    pub(super) fn has_room(&self, texts: &TextLimits, mails_per_hour: Option<u32>, now: Timestamp) -> bool {
        self.budgets(texts, mails_per_hour).all(|(_, limit, row)| matches!(limit.left(row, now), Left::Some(_)))
    }

    /// What changes by a message, if one is due and everything else permits it; the same rows are written if not.
    ///
    /// Each place is taken under the check that it is there, so that of any number of requests at once no more have one
    /// than there are; and that the region's messages pass, so that none slips through once they do not.
    pub(super) fn spend(
        &self,
        due: Due,
        now: Timestamp,
        (texts, mails_per_hour): (&TextLimits, Option<u32>),
    ) -> Spending {
        let ruled = self.rule(due, now, texts);
        let (is_granted, mut spending) = (ruled.is_sent && due.is_due(), ruled);
        for (key, limit, _) in self.budgets(texts, mails_per_hour) {
            let (cost, most) = (limit.cost(), limit.most());
            if is_granted {
                spending.checks.push(Check::Room { key, at: now, cost, most });
            }
            let cost = if is_granted { cost } else { Duration::ZERO };
            spending.writes.push(Write::Spend { key, at: now, cost, most });
        }
        spending
    }

    /// What the breaker makes of a message.
    fn rule(&self, due: Due, now: Timestamp, texts: &TextLimits) -> Spending {
        let Some((breaker, (region, stored))) = texts.breaker.as_ref().zip(self.region.as_ref()) else {
            return Spending { is_sent: true, ..Spending::default() };
        };
        let row = stored.clone().unwrap_or_default();
        let count = |event| vec![Write::CountText(region.clone(), now, event)];
        let passes = || vec![Check::TextsPass(region.clone())];
        let (checks, writes, told, is_sent) = match (due, breaker.rule(&row, now)) {
            (Due::Proof, Ruling::Pass) => (passes(), count(TextEvent::Started(breaker.window)), None, true),
            // A notice is answered by nobody.
            (Due::Notice, Ruling::Pass) => (passes(), count(TextEvent::None), None, true),
            (Due::Proof, Ruling::Withhold) | (Due::Notice, _) => (Vec::new(), count(TextEvent::None), None, false),
            (Due::Nothing, _) => (Vec::new(), count(TextEvent::None), None, true),
            (Due::Proof, ruling) => {
                let (after, is_sent) = ruling.apply(&row, now, breaker);
                let checks = vec![Check::Texts(region.clone(), stored.clone())];
                let writes = vec![Write::PutTexts(region.clone(), Box::new(after))];
                (checks, writes, told(region, ruling), is_sent)
            }
        };
        Spending { checks, writes, told, is_sent }
    }
}

/// What a ruling that changes something is told as.
fn told(region: &str, ruling: Ruling) -> Option<Signal> {
    let region = region.to_owned();
    match ruling {
        Ruling::Open(tally) => {
            Some(Signal::MessageBreakerOpened { region, started: tally.started, answered: tally.answered })
        }
        Ruling::Close(tally) => {
            Some(Signal::MessageBreakerClosed { region, started: tally.started, answered: tally.answered })
        }
        _ => None,
    }
}

/// What a message takes from what it has in common with others.
#[derive(Clone, Debug, Default)]
pub(super) struct Spending {
    pub(super) checks: Vec<Check>,
    pub(super) writes: Vec<Write>,
    /// What the breaker tells.
    pub(super) told: Option<Signal>,
    /// Whether it may be sent, as far as the breaker is concerned.
    pub(super) is_sent: bool,
}

/// What the store may say, of every shape.
#[cfg(test)]
pub(super) mod cases {
    use proptest::prelude::*;

    use super::super::text_breaker::cases::texts;
    use super::*;

    impl Common {
        pub(in super::super) fn is_text(&self) -> bool {
            self.region.is_some()
        }
    }

    pub(in super::super) fn common(now: Timestamp) -> impl Strategy<Value = Common> {
        let row = prop::option::of((-9_000_i64..90_000).prop_map(move |seconds| LimitRow {
            whole_at: Timestamp::from_micros(now.as_micros() + seconds * 1_000_000),
        }));
        (any::<bool>(), prop::collection::vec(row, 3), texts(now)).prop_map(|(is_text, rows, texts)| {
            let scopes: &[_] = match is_text {
                true => &[Scope::Prefix, Scope::TextsPerHour, Scope::TextsPerDay],
                false => &[Scope::MailsPerHour],
            };
            let scopes = scopes.iter().zip(rows).map(|(scope, row)| (*scope, [*scope as u8; 32], row));
            Common { scopes: scopes.collect(), region: is_text.then(|| ("GB".to_owned(), texts)) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_all_but_the_last_four_digits_and_seven_at_least() {
        for (number, expected) in [
            ("+447911123456", "+44791112"),
            ("+4915112345678", "+491511234"),
            ("+29012345", "+2901234"),
            ("+290123", "+290123"),
            ("", ""),
        ] {
            assert_eq!(prefix(number), expected);
        }
        let keys = Keyring::ephemeral().unwrap();
        let of = |number| Bounds::of(&keys, Channel::Phone, number, false).scopes;
        assert_eq!(of(Some("+447911123456")), of(Some("+447911129999")));
        let (one, other, nowhere) = (of(Some("+447911123456")), of(Some("+447911133456")), of(None));
        assert!(one[0] != other[0] && one[0] != nowhere[0], "by prefix");
        assert!(one[1..] == other[1..] && one[1..] == nowhere[1..], "in all");
        let resets = Bounds::of(&keys, Channel::Phone, Some("+447911123456"), true).scopes;
        assert!(resets[0] != one[0] && resets[1..] == one[1..], "resets by prefixes of their own");
    }

    #[test]
    fn what_passes_is_sent_only_if_its_region_still_does_when_it_is_committed() {
        let common = Common { scopes: Vec::new(), region: Some(("GB".to_owned(), None)) };
        for due in [Due::Proof, Due::Notice] {
            let spending = common.spend(due, Timestamp::from_micros(0), (&TextLimits::default(), None));
            assert!(spending.is_sent);
            assert!(matches!(spending.checks.as_slice(), [Check::TextsPass(region)] if region == "GB"), "{due:?}");
        }
    }

    #[test]
    fn none_is_no_limit_and_no_row() {
        let region = Some(("GB".to_owned(), None));
        let common = Common { scopes: vec![(Scope::Prefix, [1; 32], None)], region };
        let spending = common.spend(Due::Proof, Timestamp::from_micros(0), (&TextLimits::none(), None));
        assert!(spending.is_sent && spending.checks.is_empty() && spending.writes.is_empty());
        assert_eq!(TextLimits::none().faults(), TextLimits::default().faults());
    }
}
