//! What a guard is shown, and what it may amend.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use majordomo_model::{
    Actor, Change, Context, DeletionCause, Email, FlowKind, GROUPS_LIMIT, IdentifierKind, Phone, Profile, Timestamp,
    User, Username, is_fit_name,
};

/// The flows that a guard may be asked about.
pub const GUARDED_FLOWS: [FlowKind; 4] =
    [FlowKind::Register, FlowKind::Authenticate, FlowKind::Update, FlowKind::Delete];

/// What is about to be committed, as a snapshot: plain data of its own. There is no password, hash, token or session in
/// it. Personal data is; [`Debug`](fmt::Debug) does not show it.
#[derive(Clone)]
#[non_exhaustive]
pub struct GuardRequest {
    /// The user as of now; none while somebody registers.
    pub user: Option<User>,
    /// What is about to be committed.
    pub proposal: Proposal,
    /// On whose behalf.
    pub actor: Actor,
    /// The request behind it.
    pub context: Context,
    /// When it was decided.
    pub at: Timestamp,
}

/// What a flow is about to commit.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Proposal {
    /// A user.
    Register {
        /// The username.
        username: Option<Username>,
        /// The e-mail address, unproven.
        email: Option<Email>,
        /// The phone number, unproven.
        phone: Option<Phone>,
        /// Names, preferences and attributes.
        profile: Box<Profile>,
        /// The groups that the user joins.
        groups: BTreeSet<String>,
    },
    /// A session, after the right password.
    Authenticate {
        /// What the user was named by.
        identifier_kind: IdentifierKind,
    },
    /// Changes of a user; the request's `user` is the one before.
    Update {
        /// What becomes of the username.
        username: Change<Username>,
        /// Names, preferences and attributes as they would be.
        profile: Box<Profile>,
    },
    /// The removal of a user.
    Delete {
        /// Why.
        cause: DeletionCause,
    },
}

impl Proposal {
    /// The flow that proposes it.
    #[must_use]
    pub const fn flow(&self) -> FlowKind {
        match self {
            Self::Register { .. } => FlowKind::Register,
            Self::Authenticate { .. } => FlowKind::Authenticate,
            Self::Update { .. } => FlowKind::Update,
            Self::Delete { .. } => FlowKind::Delete,
        }
    }

    /// The proposal with an amendment, if it may be amended so: by the rules that hold for the request itself.
    pub(super) fn amended(&self, amendment: &Amendment, user: Option<&User>) -> Option<Self> {
        let acceptable = |profile: &Profile| {
            let profile = amendment.profile(profile);
            profile.faults().is_empty().then(|| Box::new(profile))
        };
        match self {
            Self::Register { username, email, phone, profile, groups } => {
                let groups = amendment.groups(groups);
                let is_fit = groups.len() <= GROUPS_LIMIT && amendment.named_groups().all(|name| is_fit_name(name));
                let profile = acceptable(profile).filter(|_| is_fit)?;
                let (username, email, phone) = (username.clone(), email.clone(), phone.clone());
                Some(Self::Register { username, email, phone, profile, groups })
            }
            Self::Update { username, profile } if amendment.named_groups().next().is_none() => {
                let profile = acceptable(profile)?;
                // Taking back all that was asked for is a denial in disguise.
                let is_undone = user.is_some_and(|user| user.profile == *profile) && *username == Change::Keep;
                (!is_undone).then(|| Self::Update { username: username.clone(), profile })
            }
            Self::Update { .. } | Self::Authenticate { .. } | Self::Delete { .. } => None,
        }
    }
}

/// Shows the flow only: the rest is personal.
impl fmt::Debug for Proposal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Proposal({})", self.flow().as_str())
    }
}

impl GuardRequest {
    pub(crate) const fn new(
        proposal: Proposal,
        user: Option<User>,
        actor: Actor,
        context: Context,
        at: Timestamp,
    ) -> Self {
        Self { user, proposal, actor, context, at }
    }

    /// The flow.
    #[must_use]
    pub const fn flow(&self) -> FlowKind {
        self.proposal.flow()
    }

    /// Whether a ruling on this one holds for that proposal about that user. A login raises no version, so that logins
    /// beside each other are asked about once each.
    pub(crate) fn is_about(&self, proposal: &Proposal, user: Option<&User>) -> bool {
        let version = |user: Option<&User>| user.map(|user| (user.id, user.version));
        self.proposal == *proposal && version(self.user.as_ref()) == version(user)
    }

    pub(super) fn amended(&self, amendment: &Amendment) -> Option<Self> {
        let proposal = self.proposal.amended(amendment, self.user.as_ref())?;
        Some(Self { proposal, ..self.clone() })
    }
}

/// Shows who and what, not what of.
impl fmt::Debug for GuardRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GuardRequest")
            .field("flow", &self.flow())
            .field("user", &self.user.as_ref().map(|user| user.id))
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// What a guard changes of what is about to be committed: names, preferences and attributes; groups while somebody
/// registers. It is judged by the same rules as the request itself, and committed with it.
#[derive(Clone, Default, PartialEq)]
pub struct Amendment {
    texts: BTreeMap<Text, Option<String>>,
    attributes: BTreeMap<String, Option<serde_json::Value>>,
    groups: BTreeMap<String, bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Text {
    DisplayName,
    GivenName,
    FamilyName,
    Locale,
    TimeZone,
}

impl Amendment {
    /// An amendment of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name shown to others; `None` clears it.
    #[must_use]
    pub fn display_name(self, text: Option<&str>) -> Self {
        self.text(Text::DisplayName, text)
    }

    /// Sets the given name; `None` clears it.
    #[must_use]
    pub fn given_name(self, text: Option<&str>) -> Self {
        self.text(Text::GivenName, text)
    }

    /// Sets the family name; `None` clears it.
    #[must_use]
    pub fn family_name(self, text: Option<&str>) -> Self {
        self.text(Text::FamilyName, text)
    }

    /// Sets the language tag; `None` clears it.
    #[must_use]
    pub fn locale(self, text: Option<&str>) -> Self {
        self.text(Text::Locale, text)
    }

    /// Sets the time zone; `None` clears it.
    #[must_use]
    pub fn time_zone(self, text: Option<&str>) -> Self {
        self.text(Text::TimeZone, text)
    }

    /// Sets an attribute; `None` removes it.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: Option<serde_json::Value>) -> Self {
        self.attributes.insert(name.into(), value);
        self
    }

    /// Lets a user who registers join a group.
    #[must_use]
    pub fn join(mut self, group: impl Into<String>) -> Self {
        self.groups.insert(group.into(), true);
        self
    }

    /// Keeps a user who registers out of a group.
    #[must_use]
    pub fn leave(mut self, group: impl Into<String>) -> Self {
        self.groups.insert(group.into(), false);
        self
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn text(mut self, field: Text, text: Option<&str>) -> Self {
        self.texts.insert(field, text.map(str::to_owned));
        self
    }

    /// Both, the later one's word counting where they differ.
    pub(super) fn then(mut self, later: Self) -> Self {
        self.texts.extend(later.texts);
        self.attributes.extend(later.attributes);
        self.groups.extend(later.groups);
        self
    }

    /// The groups that a user joins, amended.
    pub(crate) fn groups(&self, groups: &BTreeSet<String>) -> BTreeSet<String> {
        let kept = groups.iter().filter(|group| !self.groups.contains_key(*group));
        kept.chain(self.groups.iter().filter(|(_, joins)| **joins).map(|(group, _)| group)).cloned().collect()
    }

    fn named_groups(&self) -> impl Iterator<Item = &String> {
        self.groups.keys()
    }

    /// A profile, amended.
    pub(crate) fn profile(&self, profile: &Profile) -> Profile {
        let mut profile = profile.clone();
        for (field, text) in &self.texts {
            let place = match field {
                Text::DisplayName => &mut profile.display_name,
                Text::GivenName => &mut profile.given_name,
                Text::FamilyName => &mut profile.family_name,
                Text::Locale => &mut profile.locale,
                Text::TimeZone => &mut profile.time_zone,
            };
            place.clone_from(text);
        }
        for (name, value) in &self.attributes {
            match value {
                Some(value) => profile.attributes.insert(name.clone(), value.clone()),
                None => profile.attributes.remove(name),
            };
        }
        profile
    }
}

/// Shows how much it changes, not what.
impl fmt::Debug for Amendment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Amendment")
            .field("texts", &self.texts.len())
            .field("attributes", &self.attributes.len())
            .field("groups", &self.groups.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{UserId, UserStatus};
    use serde_json::json;

    use super::*;

    fn registering(groups: &[&str]) -> Proposal {
        Proposal::Register {
            username: Some(Username::parse("ada").unwrap()),
            email: Some(Email::parse("ada@example.com").unwrap()),
            phone: None,
            profile: Box::default(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
        }
    }

    fn user(profile: Profile) -> User {
        User {
            id: UserId::new(),
            version: 7,
            created_at: Timestamp::from_micros(0),
            status: UserStatus::Active,
            username: None,
            contacts: Vec::new(),
            profile,
            groups: BTreeSet::new(),
            last_login_at: None,
        }
    }

    fn named(name: &str) -> Box<Profile> {
        Box::new(Profile { display_name: Some(name.to_owned()), ..Profile::default() })
    }

    #[test]
    fn amendments_are_judged_by_the_rules_of_the_request() {
        let many = (0..GROUPS_LIMIT).fold(Amendment::new(), |amendment, number| amendment.join(format!("g{number}")));
        let before = user(*named("Ada"));
        let renaming = Proposal::Update { username: Change::Keep, profile: named("Eve") };
        let deep = (0..65).fold(json!(1), |inner, _| json!([inner]));
        for (proposal, amendment, acceptable) in [
            (registering(&["users"]), Amendment::new().join("staff").leave("users"), true),
            (registering(&[]), many.clone(), true),
            (registering(&["users"]), many, false),
            (registering(&[]), Amendment::new().join("no spaces"), false),
            (registering(&[]), Amendment::new().leave("no spaces"), false),
            (registering(&[]), Amendment::new().attribute("plan", Some(json!("free"))), true),
            (registering(&[]), Amendment::new().attribute("plan", Some(deep)), false),
            (registering(&[]), Amendment::new().locale(Some("x\ny")), false),
            (renaming.clone(), Amendment::new().display_name(Some("Eva")), true),
            (renaming.clone(), Amendment::new().display_name(Some("Ada")), false),
            (renaming, Amendment::new().join("staff"), false),
            (Proposal::Delete { cause: DeletionCause::Requested }, Amendment::new().locale(None), false),
            (
                Proposal::Authenticate { identifier_kind: IdentifierKind::Email },
                Amendment::new().attribute("seen", Some(json!(1))),
                false,
            ),
        ] {
            assert_eq!(proposal.amended(&amendment, Some(&before)).is_some(), acceptable, "{proposal:?} {amendment:?}");
        }
    }

    #[test]
    fn a_later_amendment_has_the_last_word_field_by_field() {
        let first = Amendment::new().display_name(Some("Ada")).locale(Some("de")).join("staff").leave("users");
        let second = Amendment::new().display_name(None).attribute("plan", Some(json!(1))).leave("staff").join("beta");
        let both = first.clone().then(second.clone());
        let one_by_one = second.profile(&first.profile(&named("Eve")));
        assert!(both.profile(&named("Eve")) == one_by_one);
        assert_eq!((one_by_one.display_name, one_by_one.locale.as_deref()), (None, Some("de")));
        let groups = BTreeSet::from(["users".to_owned(), "all".to_owned()]);
        assert_eq!(both.groups(&groups), BTreeSet::from(["all".to_owned(), "beta".to_owned()]));
        assert_eq!(both.groups(&groups), second.groups(&first.groups(&groups)));
        assert!(Amendment::new().is_empty() && !both.is_empty());
    }

    #[test]
    fn a_login_beside_it_makes_no_other_snapshot_and_a_change_does() {
        let before = user(Profile::default());
        let proposal = Proposal::Delete { cause: DeletionCause::Requested };
        let (actor, at) = (Actor::System, Timestamp::from_micros(0));
        let request = GuardRequest::new(proposal.clone(), Some(before.clone()), actor, Context::new(), at);
        let entered = User { last_login_at: Some(at), ..before.clone() };
        assert!(request.is_about(&proposal, Some(&entered)));
        assert!(!request.is_about(&proposal, Some(&User { version: 8, ..before.clone() })));
        assert!(!request.is_about(&proposal, None));
        assert!(!request.is_about(&registering(&[]), Some(&before)));
    }

    #[test]
    fn what_is_personal_is_not_shown() {
        let amendment = Amendment::new().display_name(Some("canary")).attribute("canary", None).join("canary");
        let (actor, at) = (Actor::System, Timestamp::from_micros(0));
        let person = user(*named("canary"));
        let request = GuardRequest::new(registering(&["canary"]), Some(person), actor, Context::new(), at);
        let shown = format!("{amendment:?} {request:?} {:?}", request.proposal);
        assert!(!shown.contains("canary") && !shown.contains("ada"), "{shown}");
    }
}
