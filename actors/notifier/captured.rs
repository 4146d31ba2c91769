//! An outbox that keeps what it is given: for tests, and for trying things out.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use majordomo_model::Channel;
use tokio::sync::watch;

use super::transport::{OutgoingMessage, SendError, Transport};

/// Keeps every message of every channel in memory until it is taken. Cloning shares it.
///
/// A message that is sent again is kept again, so that a test can see it.
///
/// ```
/// use majordomo_actors::notifier::{CapturedOutbox, Notifier, NotifierSettings, Templates};
/// use majordomo_model::Channel;
///
/// let outbox = CapturedOutbox::new();
/// let notifier = Notifier::new(NotifierSettings::new("Example", "http://localhost:3000"), Templates::embedded())?
///     .with_transport(outbox.transport(Channel::Email))
///     .with_transport(outbox.transport(Channel::Phone));
/// assert!(outbox.messages().is_empty());
/// # Ok::<(), majordomo_actors::notifier::NotifierFault>(())
/// ```
#[derive(Clone)]
pub struct CapturedOutbox {
    messages: Arc<watch::Sender<Vec<CapturedMessage>>>,
    #[cfg(any(test, feature = "testing"))]
    faults: Arc<std::sync::Mutex<std::collections::VecDeque<SendError>>>,
}

impl CapturedOutbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            messages: Arc::new(watch::Sender::new(Vec::new())),
            #[cfg(any(test, feature = "testing"))]
            faults: Arc::default(),
        }
    }

    /// The transport that puts messages of a channel here.
    #[must_use]
    pub fn transport(&self, channel: Channel) -> CapturedTransport {
        CapturedTransport { channel, outbox: self.clone() }
    }

    /// What is here, oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<CapturedMessage> {
        self.messages.borrow().clone()
    }

    /// What is here, oldest first, and no longer here afterwards.
    #[must_use]
    pub fn take(&self) -> Vec<CapturedMessage> {
        self.messages.send_replace(Vec::new())
    }

    /// The last message to an address, in the form in which it is sent to.
    #[must_use]
    pub fn last_to(&self, address: &str) -> Option<CapturedMessage> {
        self.messages.borrow().iter().rev().find(|message| message.to == address).cloned()
    }

    /// Waits until so many messages are here, and tells them. It waits for ever if they never come: give it a deadline.
    pub async fn wait_for(&self, count: usize) -> Vec<CapturedMessage> {
        let mut messages = self.messages.subscribe();
        // The sender lives as long as this outbox, so the waiting ends by the condition only.
        match messages.wait_for(|messages| messages.len() >= count).await {
            Ok(messages) => messages.clone(),
            Err(_) => self.messages(),
        }
    }

    /// Lets the next `count` messages fail, on whichever channel they come; they are not kept.
    #[cfg(any(test, feature = "testing"))]
    pub fn fail_next(&self, count: usize, error: SendError) {
        let mut faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        faults.extend(std::iter::repeat_n(error, count));
    }

    fn keep(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        #[cfg(any(test, feature = "testing"))]
        if let Some(error) = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front() {
            return Err(error);
        }
        self.messages.send_modify(|messages| messages.push(CapturedMessage { message: message.clone() }));
        Ok(())
    }
}

impl Default for CapturedOutbox {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows how many messages there are.
impl fmt::Debug for CapturedOutbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CapturedOutbox")
            .field("messages", &self.messages.borrow().len())
            .finish_non_exhaustive()
    }
}

/// One channel's way into a [`CapturedOutbox`].
#[derive(Clone, Debug)]
pub struct CapturedTransport {
    channel: Channel,
    outbox: CapturedOutbox,
}

impl Transport for CapturedTransport {
    fn channel(&self) -> Channel {
        self.channel
    }

    async fn send(&self, message: &OutgoingMessage) -> Result<(), SendError> {
        self.outbox.keep(message)
    }
}

/// A message that was captured: it derefs to the message, and knows how to find what a person would look for in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedMessage {
    message: OutgoingMessage,
}

impl CapturedMessage {
    /// The first line of the text that is nothing but a URL.
    #[must_use]
    pub fn link(&self) -> Option<&str> {
        let is_url = |line: &&str| {
            (line.starts_with("https://") || line.starts_with("http://")) && !line.contains(char::is_whitespace)
        };
        self.message.text.lines().map(str::trim).find(is_url)
    }

    /// The first line of the text that is nothing but 6 or 8 digits.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        let is_code = |line: &&str| matches!(line.len(), 6 | 8) && line.bytes().all(|byte| byte.is_ascii_digit());
        self.message.text.lines().map(str::trim).find(is_code)
    }
}

impl Deref for CapturedMessage {
    type Target = OutgoingMessage;

    fn deref(&self) -> &OutgoingMessage {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample_message;

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_last_message_missing() {
        let outbox = CapturedOutbox::new();
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.wait_for(2).await.len() }
        });
        for channel in [Channel::Email, Channel::Phone] {
            Transport::send(&outbox.transport(channel), &sample_message(channel)).await.unwrap();
        }
        assert_eq!(waiting.await.unwrap(), 2);
        assert_eq!(outbox.last_to("+447911123412").unwrap().channel, Channel::Phone);
        assert!(outbox.last_to("+44").is_none());
        assert_eq!((outbox.take().len(), outbox.messages().len()), (2, 0));
    }

    #[tokio::test]
    async fn faults_are_used_up() {
        let outbox = CapturedOutbox::new();
        let transport = outbox.transport(Channel::Email);
        let fault = SendError::Transient("no connection".into());
        outbox.fail_next(2, fault.clone());
        let message = sample_message(Channel::Email);
        assert_eq!(Transport::send(&transport, &message).await, Err(fault.clone()));
        assert_eq!(Transport::send(&transport, &message).await, Err(fault));
        assert_eq!(Transport::send(&transport, &message).await, Ok(()));
        assert_eq!(outbox.messages().len(), 1);
    }

    #[test]
    fn links_and_codes_stand_on_lines_of_their_own() {
        let mut message = sample_message(Channel::Email);
        message.text = "See https://example.com\n12345\nCode 111111\n  222222 \n https://example.com/a/ \n".into();
        let captured = CapturedMessage { message };
        assert_eq!((captured.link(), captured.code()), (Some("https://example.com/a/"), Some("222222")));
    }
}
