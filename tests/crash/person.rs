//! A person: what the parent knows of one user, what may be asked of them, and what must be answered.

use std::collections::BTreeSet;

use majordomo::{TokenId, UserId};
use serde_json::Value;

use crate::wire::{Act, Answer};

/// The group that everybody is in from the first.
const DEFAULT_GROUP: &str = "users";

/// What must be answered to a command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Expected {
    Done,
    Refused(&'static str),
    /// Others want the same name.
    DoneOr(&'static str),
}

impl Expected {
    pub(crate) fn fits(self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Done | Self::DoneOr(_), Answer::Done(_)) => true,
            (Self::Refused(reason) | Self::DoneOr(reason), Answer::Refused(told)) => reason == told,
            _ => false,
        }
    }
}

/// What was answered of a user, so what must be so from then on.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) user: UserId,
    pub(crate) username: String,
    pub(crate) email: Option<String>,
    pub(crate) password: String,
    pub(crate) display_name: Option<String>,
    pub(crate) groups: BTreeSet<String>,
    pub(crate) disabled: bool,
    pub(crate) proven: bool,
    /// The token of the verification message that works.
    pub(crate) verification: Option<TokenId>,
    /// The token of the reset message that works.
    pub(crate) reset: Option<TokenId>,
    /// Sessions that are open, oldest first.
    pub(crate) open: Vec<String>,
    /// Sessions that were ended.
    pub(crate) ended: Vec<String>,
    pub(crate) version: u64,
}

impl Person {
    pub(crate) fn registered(username: &str, email: Option<&String>, password: &str, reply: &Value) -> Self {
        Self {
            user: serde_json::from_value(reply["user"].clone()).unwrap(),
            username: username.to_owned(),
            email: email.cloned(),
            password: password.to_owned(),
            display_name: None,
            groups: BTreeSet::from([DEFAULT_GROUP.to_owned()]),
            disabled: false,
            proven: false,
            verification: serde_json::from_value(reply["email_challenge"].clone()).unwrap(),
            reset: None,
            open: Vec::new(),
            ended: Vec::new(),
            version: 1,
        }
    }

    pub(crate) fn may_be_verified(&self) -> bool {
        self.email.is_some() && !self.proven && !self.disabled
    }

    pub(crate) const fn may_be_reset(&self) -> bool {
        self.proven && !self.disabled
    }

    /// What must be answered, as things are.
    pub(crate) fn expects(&self, act: &Act) -> Expected {
        let settled = |same: bool| if same { Expected::Refused("nothing_to_do") } else { Expected::Done };
        match act {
            Act::LogIn { password, .. } if self.disabled || *password != self.password => {
                Expected::Refused("invalid_credentials")
            }
            Act::LogIn { .. } if self.email.is_some() && !self.proven => Expected::Refused("email_not_verified"),
            Act::LogOut { token } if !self.open.contains(token) => Expected::Refused("session_not_found"),
            Act::ChangePassword { current, .. } if *current != self.password => Expected::Refused("incorrect_password"),
            Act::ChangePassword { .. } if self.disabled => Expected::Refused("user_inactive"),
            Act::ChangeGroups { join, leave, .. } => {
                settled(self.groups.contains(join) && (join == leave || !self.groups.contains(leave)))
            }
            Act::Disable { .. } => settled(self.disabled),
            Act::Enable { .. } => settled(!self.disabled),
            _ => Expected::Done,
        }
    }

    /// Takes note of what was done. Answers what does not fit.
    pub(crate) fn note(&mut self, act: &Act, told: &Value) -> Option<String> {
        match act {
            Act::LogIn { .. } => self.open.push(told.as_str().unwrap().to_owned()),
            Act::LogOut { token } => {
                self.open.retain(|open| open != token);
                self.ended.push(token.clone());
            }
            Act::EndSessions { .. } => return self.end_sessions(told),
            Act::ChangePassword { new, .. } | Act::Reset { new, .. } => {
                self.password.clone_from(new);
                self.end_bound();
                return self.end_sessions(told);
            }
            Act::Rename { display_name, .. } => {
                self.display_name = Some(display_name.clone());
                return self.grow(told);
            }
            Act::ChangeGroups { join, leave, .. } => {
                self.groups.remove(leave);
                self.groups.insert(join.clone());
                return self.grow(told);
            }
            Act::Disable { .. } => {
                self.disabled = true;
                self.end_bound();
                self.ended.append(&mut self.open);
                return self.grow(told);
            }
            Act::Enable { .. } => {
                self.disabled = false;
                return self.grow(told);
            }
            Act::RequestVerification { .. } => self.verification = serde_json::from_value(told.clone()).ok(),
            Act::Confirm { .. } => {
                self.proven = true;
                self.verification = None;
                if told["user"] != serde_json::json!(self.user) || told["already"] == true {
                    return Some(format!("the confirmation is another one: {told}"));
                }
            }
            Act::RequestReset { .. } => self.reset = serde_json::from_value(told.clone()).ok(),
            Act::Register { .. } | Act::Delete { .. } => {}
        }
        None
    }

    /// What dies with a password and with a disabling.
    fn end_bound(&mut self) {
        self.verification = None;
        self.reset = None;
    }

    fn end_sessions(&mut self, told: &Value) -> Option<String> {
        let count = self.open.len() as u64;
        self.ended.append(&mut self.open);
        (told.as_u64() != Some(count)).then(|| format!("{count} sessions were open, and {told} were ended"))
    }

    fn grow(&mut self, told: &Value) -> Option<String> {
        let version = told.as_u64().unwrap();
        let grown = version > self.version;
        self.version = version;
        (!grown).then(|| format!("the version did not grow: {version}"))
    }

    /// What differs in the user as the system shows them.
    pub(crate) fn differs_from(&self, shown: &Value) -> Option<String> {
        let proven = shown["contacts"].as_array().is_some_and(|all| all.iter().any(|one| !one["proven_at"].is_null()));
        let status = if self.disabled { "disabled" } else { "active" };
        let groups: Option<BTreeSet<String>> = serde_json::from_value(shown["groups"].clone()).ok();
        let same = [
            ("display_name", shown["profile"]["display_name"].as_str() == self.display_name.as_deref()),
            ("status", shown["status"] == status),
            ("groups", groups.as_ref() == Some(&self.groups)),
            ("proven", proven == self.proven),
            ("version", shown["version"].as_u64() >= Some(self.version)),
            ("contacts", shown["contacts"].as_array().map(Vec::len) == Some(usize::from(self.email.is_some()))),
        ];
        let differing: Vec<_> = same.iter().filter(|(_, same)| !same).map(|(field, _)| *field).collect();
        (!differing.is_empty()).then(|| format!("{self:?} is shown with another {differing:?}: {shown}"))
    }
}
