//! Webhooks: the subscription of an endpoint, and what became of its calls.

use majordomo_actors::notifier::{
    ATTEMPT_PREFIX, ATTEMPTS_KEPT, Webhook, WebhookAttempt, WebhookFault, WebhookSettings,
};
use majordomo_actors::outbox::Subscription;
use majordomo_actors::storage::{ProjectionRange, Unreadable};

use crate::accounts::{Accounts, blocking};

/// The subscription of an endpoint, on the terms that suit one: 8 users' signals side by side, and the retries of
/// [`Webhook::retry_policy`]. It is sent everything from now on, unless a filter or a start says otherwise.
///
/// ```
/// use majordomo::notifier::{WebhookSecret, WebhookSettings};
/// use majordomo::{Accounts, Filter, SignalKind};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let secret = WebhookSecret::generate()?; // give secret.expose() to whoever runs the endpoint
/// let settings = WebhookSettings::new("https://hooks.example.com/majordomo", secret);
/// let crm = majordomo::webhook("crm", settings)?;
/// let accounts = Accounts::builder()
///     .in_memory()
///     .subscription(crm.filter(Filter::kinds([SignalKind::UserRegistered, SignalKind::UserDeleted])))
///     .spawn()
///     .await?;
/// # accounts.shutdown().await;
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
/// ```
///
/// # Errors
/// [`WebhookFault`], for settings that cannot work.
pub fn webhook(name: impl Into<String>, settings: WebhookSettings) -> Result<Subscription, WebhookFault> {
    let webhook = Webhook::new(settings)?;
    Ok(Subscription::new(name, webhook).concurrency(Webhook::CONCURRENCY).retry(Webhook::retry_policy()))
}

impl Accounts {
    /// The attempts of a webhook, the newest first, at most `limit`; the last 1,000 are kept. They are stored with the
    /// subscription's progress: those of the last moments are missing, and those that a crash cut off for good.
    ///
    /// # Errors
    /// [`Unreadable`] while storage is out.
    pub async fn webhook_attempts(&self, subscription: &str, limit: usize) -> Result<Vec<WebhookAttempt>, Unreadable> {
        let (reader, name) = (self.system().reader().clone(), subscription.to_owned());
        let kept = usize::try_from(ATTEMPTS_KEPT).unwrap_or(usize::MAX);
        let stored = blocking(move || {
            let (prefix, from) = (ATTEMPT_PREFIX, ATTEMPT_PREFIX);
            let range = ProjectionRange { prefix, from, until: None, newest_first: false, limit: kept };
            reader.projection(&name, range)
        })
        .await?;
        let mut attempts: Vec<_> = stored.iter().filter_map(|(_, value)| WebhookAttempt::decode(value)).collect();
        attempts.sort_by_key(|attempt| std::cmp::Reverse(attempt.number));
        attempts.truncate(limit);
        Ok(attempts)
    }
}
