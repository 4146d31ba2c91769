//! Change groups: a user joins or leaves groups.

use std::collections::BTreeSet;

use super::{Changed, flow};
use crate::id::UserId;
use crate::reason::reasons;

/// Adds a user to groups and takes them out of others. A group is a name that the app gives meaning to.
#[derive(Clone)]
pub struct ChangeGroups {
    /// Who.
    pub user: UserId,
    /// The groups to be in.
    pub join: BTreeSet<String>,
    /// The groups to be in no longer; joining wins where both name one.
    pub leave: BTreeSet<String>,
}

reasons! {
    /// Why groups were not changed.
    ChangeGroupsReason {
        UserNotFound = "user_not_found": "there is no such user",
        GroupInvalid = "group_invalid": "a group name is not acceptable, or there are too many",
        NothingToDo = "nothing_to_do": "nothing would change",
    }
}

flow!(ChangeGroups, ChangeGroups, Changed, ChangeGroupsReason, |m| (m.user, &m.join, &m.leave));
