//! A password to be: judged by the rules, hashed once, and judged again when it is decided.

use majordomo_model::{NormalisedPassword, Password, PasswordProblem};
use zeroize::Zeroizing;

use super::flow::{Perform, Run};
use super::policy::{Policy, own_names};
use crate::hasher::{HashError, PhcString};
use crate::storage::UserRow;

/// A password that somebody wants to set, and its hash as far as it came to that.
pub(super) struct Offer<'a> {
    password: &'a Password,
    hashed: Result<String, Unusable>,
}

/// Why there is no hash to store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Nothing permitted it, so it cost no hash.
    Unpermitted,
    /// It breaks a rule.
    Unfit(PasswordProblem),
    /// The hasher failed.
    Unhashed(HashError),
}

impl<'a> Offer<'a> {
    #[cfg(test)]
    pub(super) const fn of(password: &'a Password, hashed: Result<String, Unusable>) -> Self {
        Self { password, hashed }
    }

    /// Hashes a password for a user, if somebody showed that they may set it and it breaks no rule: one job or none.
    pub(super) async fn hash<F: Perform>(run: &Run<'_, F>, password: &'a Password, user: Option<&UserRow>) -> Self {
        let services = run.services;
        let fit = match user {
            Some(user) => check(password, user, &services.policy).map_err(Unusable::Unfit),
            None => Err(Unusable::Unpermitted),
        };
        let hashed = match fit {
            Ok(fit) if run.is_breached(fit.as_bytes()).await => Err(Unusable::Unfit(PasswordProblem::Breached)),
            Ok(fit) => {
                let bytes = Zeroizing::new(fit.as_bytes().to_vec());
                run.hash(bytes).await.map_err(Unusable::Unhashed)
            }
            Err(unusable) => Err(unusable),
        };
        Self { password, hashed: hashed.map(PhcString::into_string) }
    }

    /// The hash to store for the user as they are now, who may have taken a name since that the password repeats.
    pub(super) fn phc(&self, user: &UserRow, policy: &Policy) -> Result<&str, Unusable> {
        let phc = self.hashed.as_ref().map_err(|unusable| *unusable)?;
        check(self.password, user, policy).map_err(Unusable::Unfit)?;
        Ok(phc)
    }
}

fn check(password: &Password, user: &UserRow, policy: &Policy) -> Result<NormalisedPassword, PasswordProblem> {
    let names = own_names(user);
    policy.check_password(password, &names.iter().map(String::as_str).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use majordomo_model::{UserId, Username};

    use super::super::fixture::NOW;
    use super::*;
    use crate::storage::UsernameRow;

    #[test]
    fn a_name_that_was_taken_while_the_password_was_hashed_is_one_of_the_user_s_own() {
        let (password, policy) = (Password::new("ada.lovelace 123"), Policy::default());
        let offer = Offer::of(&password, Ok("hash".to_owned()));
        let named = |name: &str| {
            let username = Some(UsernameRow::from(&Username::parse(name).unwrap()));
            UserRow { username, ..UserRow::unknown(UserId::new(), NOW) }
        };
        assert_eq!(offer.phc(&named("grace"), &policy), Ok("hash"));
        let refused = Err(Unusable::Unfit(PasswordProblem::ContainsOwnName));
        assert_eq!(offer.phc(&named("ada.lovelace"), &policy), refused);
    }
}
