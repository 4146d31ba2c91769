//! Whereto: the address that a notice goes to.

use majordomo_model::{Channel, Contact, Email, Failure, Personal, Phone, User};

/// Where a notice goes.
pub(super) enum Whereto<'a> {
    /// To the address in the signal.
    Told(Channel, &'a Personal),
    /// To the user's own address that the one in the signal is equal to: somebody else typed that one, and on its host
    /// another spelling may be another mailbox.
    Owned(Channel, &'a Personal),
    /// To the user's proven e-mail address, else the phone number.
    Primary,
    /// To the address that the link is bound to, and to nobody once the link does not work.
    Bound,
}

impl Whereto<'_> {
    /// The address; `None` if there is none any more.
    pub(super) fn resolve(&self, user: &User) -> Result<Option<Contact>, Failure> {
        match self {
            Self::Primary => {
                let primary = user.primary(Channel::Email).or_else(|| user.primary(Channel::Phone));
                Ok(primary.map(|contact| contact.address.clone()))
            }
            Self::Told(channel, address) => parsed(*channel, address),
            Self::Bound => Ok(None),
            Self::Owned(channel, address) => {
                let Some(typed) = parsed(*channel, address)? else { return Ok(None) };
                let same = |own: &&Contact| own.channel() == *channel && own.canonical() == typed.canonical();
                Ok(user.contacts.iter().map(|contact| &contact.address).find(same).cloned())
            }
        }
    }
}

/// The address that a signal tells; `None` once its key is destroyed.
fn parsed(channel: Channel, address: &Personal) -> Result<Option<Contact>, Failure> {
    let Some(address) = address.expose() else { return Ok(None) };
    let parsed = match channel {
        Channel::Email => Email::parse(address).map(Contact::from).map_err(|_| Failure::EmailInvalid),
        Channel::Phone => Phone::parse(address).map(Contact::from).map_err(|_| Failure::PhoneInvalid),
    };
    parsed.map(Some)
}
