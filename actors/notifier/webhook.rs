//! The webhook: a subscriber that sends signals to an endpoint of somebody else, by Standard Webhooks.

mod attempt;
mod payload;
mod secret;
mod settings;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use majordomo_model::{Envelope, RetryPolicy, Timestamp};
use tokio::time::Instant;

pub use self::attempt::{ATTEMPT_PREFIX, ATTEMPTS_KEPT, WebhookAttempt};
use self::attempt::{Journal, shown};
use self::payload::Payload;
use self::secret::Proof;
pub use self::secret::WebhookSecret;
pub use self::settings::{WebhookFault, WebhookFormat, WebhookSettings};
use crate::http::{HttpAnswer, HttpClient, HttpMethod, HttpRequest, Unreached};
use crate::subscriber::{Outcome, Subscriber, SubscriberContext};

/// How long a signal is put off, counted from its own time, before it is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(75 * 3_600);
/// An endpoint that has been out for less than this has nothing given up, however old that is.
const OUT_AT_LEAST: Duration = Duration::from_secs(3_600);
/// How much of a pause is left to chance.
const JITTER: f64 = 0.1;
/// The shortest pause, whatever Retry-After says.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Sends each signal to one endpoint, signed as Standard Webhooks 1.0.0 says. One subscription an endpoint: that is its
/// own order within each user, and it waits for no other.
///
/// At least once: the `webhook-id` is the signal's id, and the same at every attempt.
///
/// | answer | what becomes of the signal |
/// |---|---|
/// | 2xx | done |
/// | 410 | the subscription halts ([`Outcome::Halt`]) until an operator releases it; the signal comes again then |
/// | 429, 503, no connection, no answer in time | put off, at no cost, until Retry-After or for a growing pause that holds for the whole endpoint; given up when the signal is 75 hours old and the endpoint has been out for an hour |
/// | anything else, redirects too; an answer that is lost or no HTTP | tried again, as the subscription's [`RetryPolicy`] says |
/// | a target that may not be called | given up at once |
///
/// Every attempt is kept in the subscription's projection, the last 1,000; see [`WebhookAttempt`].
pub struct Webhook {
    settings: WebhookSettings,
    client: HttpClient,
    journal: Journal,
    standing: Mutex<Standing>,
}

/// How the endpoint is.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// How often in a row it was out.
    failures: u32,
    /// Since when.
    out_since: Option<Timestamp>,
    /// Until when it is left alone.
    rests_until: Option<Timestamp>,
    /// Until when it asked to be left alone: an answer to another call does not take that back.
    asked_until: Option<Timestamp>,
}

impl Standing {
    /// Whether a signal is so old, and the endpoint out for so long, that one more failure is the last.
    fn has_missed(&self, envelope: &Envelope, now: Timestamp) -> bool {
        let out_for = self.out_since.map_or(Duration::ZERO, |since| now.since(since));
        now.since(envelope.at) >= GIVE_UP_AFTER && out_for >= OUT_AT_LEAST
    }
}

impl Webhook {
    /// How many users' signals are best sent side by side.
    pub const CONCURRENCY: usize = 8;

    /// A webhook for these settings.
    ///
    /// # Errors
    /// [`WebhookFault`], for what can be told without calling the endpoint.
    pub fn new(settings: WebhookSettings) -> Result<Self, WebhookFault> {
        settings.validate()?;
        let client = HttpClient::new(settings.http.clone())?;
        client.check(&settings.url).map_err(|refusal| match refusal {
            Unreached::TargetRefused => WebhookFault::TargetRefused,
            _ => WebhookFault::InvalidUrl,
        })?;
        Ok(Self { settings, client, journal: Journal::default(), standing: Mutex::default() })
    }

    /// The retries that Standard Webhooks recommends: 11 attempts over about 75 hours, the first retry after 5 seconds,
    /// each pause four times as long as the one before it and a day at most, a tenth of it left to chance.
    #[must_use]
    pub fn retry_policy() -> RetryPolicy {
        RetryPolicy {
            attempts: Some(11),
            first: Duration::from_secs(5),
            growth: 4,
            cap: Duration::from_secs(24 * 3_600),
            jitter: JITTER,
            horizon: None,
        }
    }

    async fn send(&self, envelope: &Envelope, place: u64, context: &SubscriberContext) -> Outcome {
        let (format, expose) = (&self.settings.format, self.settings.expose_personal_data);
        let Some(payload) = Payload::new(envelope, format, expose) else {
            return Outcome::reject("the signal cannot be written as JSON");
        };
        let at = context.now();
        let proof = Proof::new(&self.settings.secrets, envelope.id, at, &payload.body);
        let headers = [
            ("content-type", payload.content_type),
            ("webhook-id", proof.id.as_str()),
            ("webhook-timestamp", proof.timestamp.as_str()),
            ("webhook-signature", proof.signatures.as_str()),
        ];
        let (method, url) = (HttpMethod::Post, self.settings.url.as_str());
        let began = Instant::now();
        let answer = self.client.call(HttpRequest { method, url, headers: &headers, body: payload.body }, at).await;
        // Some send back what they were sent.
        let refusal = answer.as_ref().ok().filter(|answer| !expose && !matches!(answer.status, 200..=299));
        let attempt = WebhookAttempt {
            number: 0,
            at,
            signal: envelope.id,
            place,
            attempt: context.attempt(),
            status: answer.as_ref().ok().map(|answer| answer.status),
            failure: answer.as_ref().err().map(|unreached| unreached.as_str().to_owned()),
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            answer: refusal.and_then(|answer| shown(&answer.body, answer.is_complete)),
        };
        tracing::debug!(signal = %envelope.id, status = attempt.status, failure = attempt.failure, "a webhook was called");
        self.journal.keep(attempt, context);
        self.weigh(answer, envelope, context.now())
    }

    /// What an answer means for the signal, and for the endpoint.
    fn weigh(&self, answer: Result<HttpAnswer, Unreached>, envelope: &Envelope, now: Timestamp) -> Outcome {
        match answer {
            Ok(HttpAnswer { status: 429 | 503, retry_after, .. }) => self.put_off(retry_after, envelope, now),
            Err(Unreached::NameNotResolved | Unreached::NotConnected | Unreached::TlsFailed | Unreached::TimedOut) => {
                self.put_off(None, envelope, now)
            }
            Err(unreached @ Unreached::AnswerLost) => Outcome::retry(unreached.to_string()),
            Err(unreached) => Outcome::reject(unreached.to_string()),
            Ok(answer) => {
                // It is there, whatever it thinks of this signal.
                let asked_until = self.standing().asked_until.filter(|until| *until > now);
                *self.standing() = Standing { rests_until: asked_until, asked_until, ..Standing::default() };
                match answer.status {
                    200..=299 => Outcome::done(),
                    410 => Outcome::halt("the endpoint answered 410: it wants no more"),
                    status => Outcome::retry(format!("the endpoint answered {status}")),
                }
            }
        }
    }

    /// Leaves the endpoint alone for a while, or gives the signal up.
    fn put_off(&self, retry_after: Option<Duration>, envelope: &Envelope, now: Timestamp) -> Outcome {
        let mut standing = self.standing();
        standing.out_since.get_or_insert(now);
        // Others that were under way at the same time have found it out too: that is one failure.
        let resting = standing.rests_until.filter(|until| *until > now && retry_after.is_none());
        if resting.is_none() {
            standing.failures = standing.failures.saturating_add(1);
        }
        let growing = RetryPolicy { cap: Duration::from_secs(3_600), growth: 2, ..Self::retry_policy() };
        let growing = growing.pause(standing.failures, getrandom::u32().unwrap_or(u32::MAX));
        let until = resting.unwrap_or_else(|| now.plus(retry_after.unwrap_or(growing).max(PAUSE_MIN)));
        standing.rests_until = Some(until);
        standing.asked_until = retry_after.map_or(standing.asked_until, |_| Some(until));
        match standing.has_missed(envelope, now) {
            true => Outcome::reject("the endpoint could not be reached for 75 hours"),
            // So old, and others get through: it is this signal, and from now on it costs attempts.
            false if now.since(envelope.at) >= GIVE_UP_AFTER => {
                Outcome::retry("the endpoint does not take this signal")
            }
            false => Outcome::defer(until),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Webhook {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        let Some(place) = envelope.seq else { return Outcome::done() };
        if context.is_rebuilding() {
            // It is not sent again, and there is nothing to project.
            return Outcome::done();
        }
        if !self.journal.is_open() {
            return match self.journal.open(context) {
                Ok(()) => Outcome::defer(context.now()),
                Err(unanswered) => Outcome::retry(unanswered.to_string()),
            };
        }
        let (standing, now) = (*self.standing(), context.now());
        match standing.rests_until.filter(|until| *until > now) {
            // Another lane found it out; whoever comes behind does not call it in vain, but for the last time.
            Some(until) if !standing.has_missed(envelope, now) => Outcome::defer(until),
            _ => self.send(envelope, place, context).await,
        }
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Webhook").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
