//! Samples: every message as it would be sent, to be looked at.

use majordomo_model::{Channel, SignalId};

use super::composer::Composer;
use super::facts::Facts;
use super::internet_message;
use super::settings::NotifierFault;
use super::settings::NotifierSettings;
use super::shapes::{PATH, SAMPLE_TIME, shapes};
use super::templates::{TemplateFaults, Templates};
use super::transport::OutgoingMessage;

/// A message with sample data in it: no link and no code of it works.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The message's name, such as `verify_email`, with its shape if that is not the usual one:
    /// `verify_email.code_expired`.
    pub name: String,
    /// The message.
    pub message: OutgoingMessage,
}

impl Sample {
    /// An e-mail as a mail program reads it (RFC 5322); `None` for a text message.
    #[must_use]
    pub fn internet_message(&self) -> Option<String> {
        internet_message::mail(&self.message).ok()
    }
}

impl Templates {
    /// Renders every message in each locale that it has templates for and in every shape in which it can come, for
    /// whoever wants to see them.
    ///
    /// # Errors
    /// [`NotifierFault`], as when a notifier is built of the same.
    ///
    /// ```
    /// use majordomo_actors::notifier::{NotifierSettings, Templates};
    ///
    /// let samples = Templates::embedded().render_samples(&NotifierSettings::new("Example", "https://example.com"))?;
    /// assert!(samples.iter().any(|sample| sample.name == "verify_email.code_expired"));
    /// # Ok::<(), majordomo_actors::notifier::NotifierFault>(())
    /// ```
    pub fn render_samples(&self, settings: &NotifierSettings) -> Result<Vec<Sample>, NotifierFault> {
        settings.validate()?;
        let composer = Composer::new(self.clone())?;
        let link = [settings.home(), PATH].concat();
        let mut samples = Vec::new();
        for (form, locale) in composer.variants() {
            for shape in shapes(form.kind, &link) {
                let facts = Facts {
                    app_name: &settings.app_name,
                    base_url: settings.home(),
                    host: settings.host(),
                    default_locale: &settings.default_locale,
                    happened_at: SAMPLE_TIME,
                    detail: shape.detail,
                };
                let rendered = composer.render(form.kind, form.channel, locale.as_deref(), &facts);
                let rendered = rendered.map_err(|fault| TemplateFaults(vec![fault]))?;
                let is_mail = form.channel == Channel::Email;
                let message = OutgoingMessage {
                    id: SignalId::from_bytes([7; 16]),
                    at: SAMPLE_TIME,
                    kind: form.kind,
                    channel: form.channel,
                    from: is_mail.then(|| settings.mailbox()),
                    to: if is_mail { "ada@example.org" } else { "+447911123456" }.to_owned(),
                    subject: rendered.subject,
                    text: rendered.text,
                    html: rendered.html,
                    locale: rendered.locale,
                };
                let mut name = form.stem.to_owned();
                if !shape.name.is_empty() {
                    name.extend([".", shape.name]);
                }
                samples.push(Sample { name, message });
            }
        }
        Ok(samples)
    }
}
