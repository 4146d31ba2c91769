//! A contact: where a person can be reached.

use serde::{Deserialize, Serialize};

use crate::{Email, Phone};

/// The way a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// By e-mail.
    Email,
    /// By phone: a text message.
    Phone,
}

impl Channel {
    /// The channel as a stable word, the same as its serialised form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
        }
    }
}

/// An e-mail address or a phone number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contact {
    /// An e-mail address.
    Email(Email),
    /// A phone number.
    Phone(Phone),
}

impl Contact {
    /// The channel that reaches this contact.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Email(_) => Channel::Email,
            Self::Phone(_) => Channel::Phone,
        }
    }

    /// The form that is compared and looked up; unique within its channel only.
    #[must_use]
    pub fn canonical(&self) -> &str {
        match self {
            Self::Email(email) => email.canonical(),
            Self::Phone(phone) => phone.canonical(),
        }
    }

    /// The contact with most of it left out: for logs.
    #[must_use]
    pub fn redacted(&self) -> String {
        match self {
            Self::Email(email) => email.redacted(),
            Self::Phone(phone) => phone.redacted(),
        }
    }
}

impl From<Email> for Contact {
    fn from(email: Email) -> Self {
        Self::Email(email)
    }
}

impl From<Phone> for Contact {
    fn from(phone: Phone) -> Self {
        Self::Phone(phone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_answers_for_what_it_holds() {
        let email = Contact::from(Email::parse("Alice@example.com").unwrap());
        let phone = Contact::from(Phone::parse("+447911123412").unwrap());
        assert_eq!((email.channel(), phone.channel()), (Channel::Email, Channel::Phone));
        assert_eq!((email.canonical(), phone.canonical()), ("alice@example.com", "+447911123412"));
        assert_eq!(format!("{email:?} {phone:?}"), "Email(Email(a***@e***.com)) Phone(Phone(+44***12))");
        for contact in [email, phone] {
            assert_eq!(serde_json::to_value(contact.channel()).unwrap(), contact.channel().as_str());
            let json = serde_json::to_string(&contact).unwrap();
            assert_eq!(serde_json::from_str::<Contact>(&json).unwrap(), contact);
        }
    }
}
