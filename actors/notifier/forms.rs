//! Forms: each message on each channel, and the names of the templates that it is made of.

use majordomo_model::{Channel, MessageKind};

use super::settings::is_language_tag;

/// What several messages are laid out with; no message by themselves.
pub(super) const SHARED: [&str; 3] = ["layout.html", "button.html", "code.html"];

/// One message on one channel, and the stem of its templates' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form {
    pub(super) kind: MessageKind,
    pub(super) channel: Channel,
    pub(super) stem: &'static str,
}

const fn form(kind: MessageKind, channel: Channel, stem: &'static str) -> Form {
    Form { kind, channel, stem }
}

pub(super) const FORMS: [Form; 20] = [
    form(MessageKind::VerifyEmail, Channel::Email, "verify_email"),
    form(MessageKind::VerifyPhone, Channel::Phone, "verify_phone"),
    form(MessageKind::ResetPasswordEmail, Channel::Email, "reset_password_email"),
    form(MessageKind::ResetPasswordPhone, Channel::Phone, "reset_password_phone"),
    form(MessageKind::AddressTaken, Channel::Email, "address_taken"),
    form(MessageKind::AddressTaken, Channel::Phone, "address_taken_phone"),
    form(MessageKind::ContactChanged, Channel::Email, "contact_changed"),
    form(MessageKind::ContactChanged, Channel::Phone, "contact_changed_phone"),
    form(MessageKind::PasswordChanged, Channel::Email, "password_changed"),
    form(MessageKind::PasswordChanged, Channel::Phone, "password_changed_phone"),
    form(MessageKind::ContactAdded, Channel::Email, "contact_added"),
    form(MessageKind::ContactAdded, Channel::Phone, "contact_added_phone"),
    form(MessageKind::ContactRemoved, Channel::Email, "contact_removed"),
    form(MessageKind::ContactRemoved, Channel::Phone, "contact_removed_phone"),
    form(MessageKind::NewSignIn, Channel::Email, "new_sign_in"),
    form(MessageKind::NewSignIn, Channel::Phone, "new_sign_in_phone"),
    form(MessageKind::UsernameChanged, Channel::Email, "username_changed"),
    form(MessageKind::UsernameChanged, Channel::Phone, "username_changed_phone"),
    form(MessageKind::AccountLocked, Channel::Email, "account_locked"),
    form(MessageKind::AccountLocked, Channel::Phone, "account_locked_phone"),
];

impl Form {
    /// The form of a message on a channel, if it travels there.
    pub(super) fn find(kind: MessageKind, channel: Channel) -> Option<Self> {
        FORMS.into_iter().find(|form| form.kind == kind && form.channel == channel)
    }

    /// What follows the stem in the names of its templates.
    pub(super) const fn parts(self) -> &'static [(&'static str, &'static str)] {
        match self.channel {
            Channel::Email => &[(".subject", ".txt"), ("", ".txt"), ("", ".html")],
            Channel::Phone => &[("", ".txt")],
        }
    }

    /// The name of one of its templates.
    pub(super) fn template(self, (part, ending): (&str, &str), locale: Option<&str>) -> String {
        let locale = locale.map(|tag| format!(".{tag}")).unwrap_or_default();
        [self.stem, part, &locale, ending].concat()
    }

    /// The form, and the locale in lower case, that a template of this name is for.
    pub(super) fn of(name: &str) -> Option<(Self, Option<String>)> {
        let parts = || FORMS.into_iter().flat_map(|form| form.parts().iter().map(move |part| (form, *part)));
        if let Some((form, _)) = parts().find(|(form, part)| form.template(*part, None) == name) {
            return Some((form, None));
        }
        parts().find_map(|(form, (part, ending))| {
            let rest = name.strip_prefix(form.stem)?.strip_prefix(part)?.strip_prefix('.')?;
            let locale = rest.strip_suffix(ending)?;
            is_language_tag(locale).then(|| (form, Some(locale.to_ascii_lowercase())))
        })
    }
}

/// The name under which a template is kept, whatever the case of its locale; `None` if no message has such a one.
pub(super) fn place_of(name: &str) -> Option<String> {
    if let Some((form, locale)) = Form::of(name) {
        let mut places = form.parts().iter().map(|part| form.template(*part, locale.as_deref()));
        return places.find(|place| place.eq_ignore_ascii_case(name));
    }
    let is_shared = |shared: &str| {
        let Some((stem, ending)) = shared.split_once('.') else { return false };
        let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.'));
        let locale = rest.and_then(|rest| rest.strip_suffix(ending)?.strip_suffix('.'));
        name == shared || locale.is_some_and(is_language_tag)
    };
    SHARED.into_iter().any(is_shared).then(|| name.to_ascii_lowercase())
}

/// The locales that serve a wanted one, best first: subtags are taken off its end one by one, and a single letter goes
/// with what it introduced (RFC 4647, section 3.4).
pub(super) fn lookup(wanted: &str) -> Vec<String> {
    let mut ranges = Vec::new();
    let mut subtags: Vec<&str> = wanted.split('-').collect();
    while !subtags.is_empty() {
        ranges.push(subtags.join("-").to_ascii_lowercase());
        subtags.pop();
        while subtags.last().is_some_and(|subtag| subtag.len() == 1) {
            subtags.pop();
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_is_looked_up_as_rfc_4647_says() {
        assert_eq!(lookup("zh-Hant-TW"), ["zh-hant-tw", "zh-hant", "zh"]);
        assert_eq!(
            lookup("zh-Hant-CN-x-private1-private2"),
            ["zh-hant-cn-x-private1-private2", "zh-hant-cn-x-private1", "zh-hant-cn", "zh-hant", "zh"]
        );
        assert_eq!(lookup("de"), ["de"]);
    }

    #[test]
    fn names_have_their_place_whatever_the_case_of_the_locale() {
        for (name, place) in [
            ("verify_email.html", Some("verify_email.html")),
            ("verify_email.subject.de-AT.txt", Some("verify_email.subject.de-at.txt")),
            ("layout.html", Some("layout.html")),
            ("layout.pt-BR.html", Some("layout.pt-br.html")),
            ("verify_phone.html", None),
            ("verify_mail.txt", None),
            ("layout.txt", None),
            ("../layout.html", None),
            ("layout.de_AT.html", None),
        ] {
            assert_eq!(place_of(name).as_deref(), place, "{name}");
        }
    }
}
