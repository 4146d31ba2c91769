//! Change groups: a user joins or leaves groups.

use std::collections::BTreeSet;

use majordomo_model::{ChangeGroups, ChangeGroupsReason, Changed, Failure, Signal, UserId, is_fit_name};

use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::policy::{GROUPS_LIMIT, seal_key};
use crate::storage::{Check, Lookup, ReadError, ReadView, UserRow, Write};

/// What the store says.
struct Facts {
    user: Option<UserRow>,
}

impl Facts {
    fn read(view: &ReadView, message: &ChangeGroups) -> Result<Self, ReadError> {
        Ok(Self { user: view.user(message.user)? })
    }
}

/// Facts in, batch out.
fn decide(message: &ChangeGroups, facts: &Facts) -> Decision<ChangeGroups> {
    let Some(user) = &facts.user else {
        return Decision::refuse(ChangeGroupsReason::UserNotFound, failed(message.user, Failure::UserNotFound));
    };
    let refuse = |reason, failure| Decision::refuse(reason, failed(user.id, failure)).about(user.id, seal_key(user));
    let groups: BTreeSet<String> = user.groups.difference(&message.leave).chain(&message.join).cloned().collect();
    if groups.len() > GROUPS_LIMIT || !message.join.iter().chain(&message.leave).all(|name| is_fit_name(name)) {
        return refuse(ChangeGroupsReason::GroupInvalid, Failure::GroupInvalid);
    }
    if groups == user.groups {
        return refuse(ChangeGroupsReason::NothingToDo, Failure::NothingToDo);
    }
    let version = user.version.saturating_add(1);
    let end = Signal::GroupsChanged { user: user.id, version, groups: groups.iter().cloned().collect() };
    Decision {
        checks: vec![Check::UserVersion(user.id, user.version)],
        writes: vec![Write::PutUser(Box::new(UserRow { groups, version, ..user.clone() }))],
        told: Vec::new(),
        end,
        subject: Some((user.id, seal_key(user))),
        answer: Ok(Changed { version }),
    }
}

const fn failed(user: UserId, reason: Failure) -> Signal {
    Signal::GroupsChangeFailed { user, reason }
}

impl Perform for ChangeGroups {
    fn started(&self, _services: &Services) -> Signal {
        Signal::GroupsChangeStarted { user: self.user }
    }

    fn failed(&self, _services: &Services, why: Failure) -> Signal {
        failed(self.user, why)
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        run.settle(|view, _| Ok(decide(self, &Facts::read(view, self)?))).await
    }

    fn remember(answer: &Result<Changed, ChangeGroupsReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<Changed, ChangeGroupsReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use majordomo_model::{Error, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, assert_well_formed, user_row};
    use super::*;

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.map(str::to_owned).into()
    }

    fn message(user: UserId, join: BTreeSet<String>, leave: BTreeSet<String>) -> ChangeGroups {
        ChangeGroups { user, join, leave }
    }

    #[tokio::test]
    async fn groups_are_joined_and_left_and_told_sorted() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
        let change = message(user, names(["staff", "editors"]), names(["users", "staff", "absent"]));
        assert_eq!(fixture.run(change).await.unwrap(), Changed { version: 2 });
        assert_eq!(fixture.services.storage.observe().batches - commits, 1);
        assert_eq!(fixture.kinds_after(head), [SignalKind::GroupsChangeStarted, SignalKind::GroupsChanged]);
        let groups = vec!["editors".to_owned(), "staff".to_owned()];
        assert_eq!(fixture.last_signal(), Signal::GroupsChanged { user, version: 2, groups });
        assert_eq!(fixture.user(user).groups, names(["editors", "staff"]));
    }

    #[tokio::test]
    async fn refusals_are_told_by_name_and_change_nothing() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        let many = (0..GROUPS_LIMIT).map(|number| format!("g{number}")).collect();
        for (change, reason) in [
            (message(UserId::new(), names(["staff"]), names([])), ChangeGroupsReason::UserNotFound),
            (message(user, names(["no spaces"]), names([])), ChangeGroupsReason::GroupInvalid),
            (message(user, names([]), names([""])), ChangeGroupsReason::GroupInvalid),
            (message(user, many, names([])), ChangeGroupsReason::GroupInvalid),
            (message(user, names(["users"]), names(["users", "absent"])), ChangeGroupsReason::NothingToDo),
        ] {
            let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
            assert_eq!(fixture.run(change).await.unwrap_err(), Error::Refused(reason));
            assert_eq!(fixture.services.storage.observe().batches - commits, 1);
            assert_eq!(fixture.kinds_after(head), [SignalKind::GroupsChangeStarted, SignalKind::GroupsChangeFailed]);
            let Signal::GroupsChangeFailed { reason: told, .. } = fixture.last_signal() else { panic!() };
            assert_eq!(told.as_str(), reason.as_str());
        }
        assert_eq!(fixture.user(user).version, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn joins_at_once_all_count() {
        let fixture = Arc::new(Fixture::new().await);
        let user = fixture.register("ada", None, None).await.user;
        let joins = (1..GROUPS_LIMIT).map(|number| {
            let fixture = Arc::clone(&fixture);
            let change = message(user, BTreeSet::from([format!("g{number}")]), BTreeSet::new());
            tokio::spawn(async move { fixture.run(change).await })
        });
        for join in joins.collect::<Vec<_>>() {
            join.await.unwrap().unwrap();
        }
        let row = fixture.user(user);
        assert_eq!((row.version, row.groups.len()), (64, GROUPS_LIMIT));
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once(
            found in any::<bool>(),
            join in prop::collection::btree_set("[a-c ]{0,2}", 0..4),
            leave in prop::collection::btree_set("[a-c ]{0,2}", 0..4),
            groups in prop::collection::btree_set("[a-c]{1,2}|[a-z]{8}", 0..66),
        ) {
            let user = UserRow { groups, ..user_row("ada", None) };
            let message = message(user.id, join, leave);
            let decision = decide(&message, &Facts { user: found.then_some(user) });
            assert_well_formed(&decision);
            prop_assert_eq!(decision.answer.is_ok(), decision.end.kind() == SignalKind::GroupsChanged);
            prop_assert_eq!(decision.answer.is_ok(), !decision.writes.is_empty());
        }
    }
}
