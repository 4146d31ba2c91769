//! The route of a message: the transports of its channel in their order, each behind a breaker and a rate.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use majordomo_model::{Channel, Timestamp};
use tracing::Instrument;

use super::SEND_DEADLINE;
use super::breaker::{Admission, Breaker};
use super::rate::Rate;
use super::terms::{TransportState, TransportStatus, TransportTerms};
use super::transport::{BoxedTransport, OutgoingMessage, SendError};
use crate::subscriber::SubscriberContext;

/// How many attempts a message has on one transport before another one is preferred.
const ATTEMPTS_IN_PLACE: u32 = 2;
/// How much is kept of what a transport says, in characters.
const REASON_LIMIT: usize = 200;

/// What became of a message on its route.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// A transport accepted it.
    Accepted,
    /// Every transport refused it for good, or there is none.
    Refused,
    /// It is to be tried again after a pause; the attempt counts.
    Later(String),
    /// No transport is to be had before this time.
    Waits(Timestamp),
}

/// The transports of a notifier. Cloning shares them.
#[derive(Clone, Default)]
pub struct Route {
    stations: Vec<Arc<Station>>,
}

/// A transport with what is known of it.
struct Station {
    name: String,
    channel: Channel,
    transport: BoxedTransport,
    standing: Mutex<Standing>,
}

struct Standing {
    breaker: Breaker,
    rate: Option<Rate>,
    accepted: u64,
    refused: u64,
    transient: u64,
    unavailable: u64,
    last_failure: Option<String>,
}

impl Route {
    pub(super) fn add(&mut self, transport: BoxedTransport, terms: TransportTerms) {
        let channel = transport.channel();
        let number = self.of(channel).len().saturating_add(1);
        let standing = Standing {
            breaker: Breaker::new(&terms),
            rate: terms.rate.map(|(messages, per)| Rate::new(messages, per)),
            accepted: 0,
            refused: 0,
            transient: 0,
            unavailable: 0,
            last_failure: None,
        };
        let name = terms.name.unwrap_or_else(|| format!("{}-{number}", channel.as_str()));
        self.stations.push(Arc::new(Station { name, channel, transport, standing: Mutex::new(standing) }));
    }

    fn of(&self, channel: Channel) -> Vec<&Arc<Station>> {
        self.stations.iter().filter(|station| station.channel == channel).collect()
    }

    /// The channels that there are transports for, one by one.
    pub(super) fn channels(&self) -> impl Iterator<Item = Channel> {
        [Channel::Email, Channel::Phone].into_iter().filter(|channel| !self.of(*channel).is_empty())
    }

    /// How long a handler may take at most: each transport of a channel may be waited for.
    pub(super) fn patience(&self) -> Duration {
        let most = self.channels().map(|channel| self.of(channel).len()).max().unwrap_or(0);
        SEND_DEADLINE.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// How the transports stand, in their order.
    #[must_use]
    pub fn states(&self) -> Vec<TransportState> {
        self.stations.iter().map(|station| station.state()).collect()
    }

    /// Until when a message of this channel has to wait, if no transport may be tried now.
    pub(super) fn closed_until(&self, channel: Channel, now: Timestamp) -> Option<Timestamp> {
        let mut earliest = None;
        for station in self.of(channel) {
            let until = station.standing().when(now).err()?;
            earliest = Some(earliest.map_or(until, |least: Timestamp| least.min(until)));
        }
        earliest
    }

    /// Hands a message to one transport after the other, until one accepts it or the answer of one may be lost.
    ///
    /// What failed on a transport that answered is tried there once more, so that a message which was taken all the same
    /// is not sent twice; from the third attempt on the next one is preferred.
    pub(super) async fn carry(&self, message: &OutgoingMessage, context: &SubscriberContext) -> Carried {
        let mut stations = self.of(message.channel);
        let ahead = usize::try_from(context.attempt().saturating_sub(1) / ATTEMPTS_IN_PLACE).unwrap_or(0);
        if let Some(first) = ahead.checked_rem(stations.len()) {
            stations.rotate_left(first);
        }
        let mut earliest: Option<Timestamp> = None;
        for station in stations {
            let until = match station.send(message, context).await {
                Answer::Accepted => return Carried::Accepted,
                Answer::Refused => continue,
                Answer::Later(reason) => return Carried::Later(reason),
                Answer::Closed(until) => until,
            };
            earliest = Some(earliest.map_or(until, |least| least.min(until)));
        }
        earliest.map_or(Carried::Refused, Carried::Waits)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.stations.iter().map(|station| &station.name)).finish()
    }
}

/// What one transport made of a message.
enum Answer {
    Accepted,
    Refused,
    Later(String),
    /// It is not to be had before this time.
    Closed(Timestamp),
}

impl Station {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, message: &OutgoingMessage, context: &SubscriberContext) -> Answer {
        let admission = match self.standing().admit(context.now()) {
            Ok(admission) => admission,
            Err(until) => return Answer::Closed(until),
        };
        let mut attempt = Attempt { station: self, admission, context, is_over: false };
        let sending = AssertUnwindSafe(self.transport.send(message)).catch_unwind();
        let span = tracing::debug_span!("send", transport = self.name, kind = ?message.kind, signal = %message.id);
        let answer = tokio::time::timeout(SEND_DEADLINE, sending).instrument(span).await;
        attempt.is_over = true;
        match answer {
            Ok(Ok(Ok(()))) => {
                self.answered(admission, |standing| standing.accepted += 1);
                Answer::Accepted
            }
            Ok(Ok(Err(SendError::Permanent(reason)))) => {
                self.answered(admission, |standing| {
                    standing.refused += 1;
                    standing.failed(&reason);
                });
                Answer::Refused
            }
            Ok(Ok(Err(SendError::Transient(reason)))) => {
                self.answered(admission, |standing| {
                    standing.transient += 1;
                    standing.failed(&reason);
                });
                Answer::Later(reason)
            }
            Ok(Ok(Err(SendError::Unavailable { reason, retry_after }))) => {
                Answer::Closed(self.unavailable(admission, context.now(), &reason, retry_after))
            }
            // The message may be taken all the same.
            Ok(Err(_)) => self.lost(admission, context, "the transport panicked"),
            Err(_) => self.lost(admission, context, "the transport did not answer in time"),
        }
    }

    fn answered(&self, admission: Admission, note: impl FnOnce(&mut Standing)) {
        let mut standing = self.standing();
        note(&mut standing);
        if standing.breaker.answered(admission) {
            tracing::warn!(transport = self.name, "a transport answers again and is used as before");
        }
    }

    fn unavailable(&self, admission: Admission, now: Timestamp, reason: &str, told: Option<Duration>) -> Timestamp {
        let chance = getrandom::u32().unwrap_or(u32::MAX);
        let mut standing = self.standing();
        standing.unavailable += 1;
        standing.failed(reason);
        let (until, opens) = standing.breaker.unavailable(admission, now, told, chance);
        if opens {
            let failures = standing.breaker.failures();
            tracing::warn!(transport = self.name, failures, reason, %until, "a transport is out and is left alone");
        }
        until
    }

    fn lost(&self, admission: Admission, context: &SubscriberContext, reason: &str) -> Answer {
        self.unavailable(admission, context.now(), reason, None);
        Answer::Later(reason.to_owned())
    }

    fn state(&self) -> TransportState {
        let standing = self.standing();
        let open_until = standing.breaker.open_until();
        TransportState {
            name: self.name.clone(),
            channel: self.channel,
            status: match (open_until, standing.breaker.is_probing()) {
                (Some(_), _) => TransportStatus::Open,
                (None, true) => TransportStatus::Trying,
                (None, false) => TransportStatus::Closed,
            },
            open_until,
            failures_in_row: standing.breaker.failures(),
            accepted: standing.accepted,
            refused: standing.refused,
            transient: standing.transient,
            unavailable: standing.unavailable,
            last_failure: standing.last_failure.clone(),
        }
    }
}

impl Standing {
    fn failed(&mut self, reason: &str) {
        self.last_failure = Some(reason.chars().take(REASON_LIMIT).collect());
    }

    /// Whether a message may be tried now, or else when to ask again.
    fn when(&self, now: Timestamp) -> Result<(), Timestamp> {
        self.breaker.when(now)?;
        match self.rate.as_ref().map(|rate| rate.next(now)) {
            Some(next) if next > now => Err(next),
            _ => Ok(()),
        }
    }

    fn admit(&mut self, now: Timestamp) -> Result<Admission, Timestamp> {
        self.breaker.when(now)?;
        if let Some(rate) = &mut self.rate {
            if rate.next(now) > now {
                return Err(rate.turn_away(now));
            }
            rate.count(now);
        }
        self.breaker.admit(now)
    }
}

/// A message in a transport's hands. Left behind, because the handler was, it counts as one whose answer is lost.
struct Attempt<'a> {
    station: &'a Station,
    admission: Admission,
    context: &'a SubscriberContext,
    is_over: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.station.lost(self.admission, self.context, "the transport was not waited for any longer");
        }
    }
}
