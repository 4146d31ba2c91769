//! The user: update, groups, disable, enable, delete.

use std::collections::BTreeSet;
use std::time::Duration;

use majordomo::SignalKind::{
    GroupsChangeFailed, GroupsChangeStarted, GroupsChanged, SessionRevoked, UserDeleted, UserDeletionFailed,
    UserDeletionStarted, UserDisableFailed, UserDisableStarted, UserDisabled, UserEnableFailed, UserEnableStarted,
    UserEnabled, UserUpdateFailed, UserUpdateStarted, UserUpdated,
};
use majordomo::{
    Actor, Change, ChangeGroups, ChangeGroupsReason, Delete, DeleteReason, DeletionCause, Disable, DisableReason,
    Enable, EnableReason, Requirement, SignalKind, Update, UpdateReason, UserId,
};
use serde_json::{Value, json};

use super::scenarios;
use super::stage::{Stage, Table};

scenarios! {
    an_update_tells_the_fields_that_changed_and_never_their_values
    an_update_is_refused_for_every_reason
    an_update_of_what_policy_requires_or_forbids_is_refused
    a_change_of_groups_tells_all_of_them
    a_change_of_groups_is_refused_for_every_reason
    a_disabling_ends_sessions_and_is_done_once
    an_enabling_is_done_once
    a_deletion_tells_how_many_sessions_it_ended
    a_deletion_is_refused_for_every_reason
    an_account_that_was_never_verified_is_deleted_by_the_sweep_with_its_cause
}

fn set(text: &str) -> Change<String> {
    Change::Set(text.to_owned())
}

async fn an_update_tells_the_fields_that_changed_and_never_their_values(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let attributes = [("plan".to_owned(), Change::Set(json!("gold")))].into();
    let update = Update {
        version: Some(2),
        username: set("countess"),
        display_name: set("Ada"),
        locale: Change::Clear,
        attributes,
        ..Update::new(user)
    };
    let ran = stage.run(update).await;
    ran.tells(&[
        (UserUpdateStarted, json!({ "user": user, "fields": ["attributes", "display_name", "locale", "username"] })),
        (UserUpdated, json!({ "user": user, "version": 3, "fields": ["attributes", "display_name", "username"] })),
    ]);
    assert!(ran.lane_of(user) && ran.granted().version == 3);
    for envelope in &ran.signals {
        let text = serde_json::to_string(envelope).unwrap();
        assert!(["countess", "Ada", "gold"].iter().all(|value| !text.contains(value)), "{text}");
    }
    table.close(stage).await;
}

async fn assert_updates_refused(stage: &mut Stage, rows: Vec<(Update, UpdateReason, &[&str])>) {
    for (message, reason, fields) in rows {
        let user = message.user;
        let error_type = if reason == UpdateReason::UserNotFound { "user_not_found" } else { "validation_error" };
        let end = json!({ "user": user, "fields": fields, "error_type": error_type, "reason": reason.as_str() });
        stage
            .run(message)
            .await
            .refused(reason)
            .tells(&[(UserUpdateStarted, json!({ "user": user })), (UserUpdateFailed, end)]);
    }
}

async fn an_update_is_refused_for_every_reason(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (user, unproven, nobody) = (stage.verified("ada").await, stage.claimed("eve").await, UserId::new());
    let name = |username: &str| Update { username: set(username), ..Update::new(user) };
    let display = |text: &str| Update { display_name: set(text), ..Update::new(user) };
    let rows: Vec<(_, _, &[&str])> = vec![
        (Update { user: nobody, ..display("Ada") }, UpdateReason::UserNotFound, &["display_name"]),
        (Update { version: Some(1), ..display("Ada") }, UpdateReason::VersionConflict, &["display_name"]),
        (name("a b"), UpdateReason::UsernameInvalid, &["username"]),
        (name("r00t"), UpdateReason::UsernameReserved, &["username"]),
        (name("EVE"), UpdateReason::UsernameTaken, &["username"]),
        (Update { username: Change::Clear, ..Update::new(unproven) }, UpdateReason::UsernameRequired, &["username"]),
        (display("bell \u{7}"), UpdateReason::ProfileInvalid, &["display_name"]),
        (name("ada"), UpdateReason::NothingToDo, &["username"]),
        (Update::new(user), UpdateReason::NothingToDo, &[]),
    ];
    assert_updates_refused(&mut stage, rows).await;
    let (fields, reason) = (["username"], "session_not_found");
    let end = json!({ "user": user, "fields": fields, "error_type": "validation_error", "reason": reason });
    let unpermitted = stage.run_as(Actor::User(user), name("countess")).await;
    unpermitted
        .refused(UpdateReason::NotAuthorised)
        .tells(&[(UserUpdateStarted, json!({ "user": user })), (UserUpdateFailed, end)]);
    assert_eq!(stage.test.user(user).unwrap().unwrap().version, 2, "a refusal changes nothing");
    table.close(stage).await;
}

async fn an_update_of_what_policy_requires_or_forbids_is_refused(table: &mut Table) {
    let mut stage = Stage::with(|config| config.policy.username = Requirement::Required).await;
    let user = stage.verified("ada").await;
    let clear = Update { username: Change::Clear, ..Update::new(user) };
    assert_updates_refused(&mut stage, vec![(clear, UpdateReason::UsernameRequired, &["username"])]).await;
    table.close(stage).await;
    let mut stage = Stage::with(|config| config.policy.username = Requirement::Forbidden).await;
    let user = stage.phoned(super::stage::PHONE).await;
    let name = Update { username: set("ada"), ..Update::new(user) };
    assert_updates_refused(&mut stage, vec![(name, UpdateReason::IdentifierNotAllowed, &["username"])]).await;
    table.close(stage).await;
}

fn groups(user: UserId, join: &[&str], leave: &[&str]) -> ChangeGroups {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    ChangeGroups { user, join: owned(join), leave: owned(leave) }
}

async fn a_change_of_groups_tells_all_of_them(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    for (version, message, after) in [
        (3, groups(user, &["staff", "beta"], &[]), vec!["beta", "staff", "users"]),
        (4, groups(user, &["beta"], &["users", "beta"]), vec!["beta", "staff"]),
    ] {
        let ran = stage.run(message).await;
        ran.tells(&[
            (GroupsChangeStarted, json!({ "user": user })),
            (GroupsChanged, json!({ "user": user, "version": version, "groups": after })),
        ]);
        assert!(ran.lane_of(user) && ran.granted().version == version);
    }
    table.close(stage).await;
}

/// A start and a failure that tell the user, and the failure its reason.
fn refusal(start: SignalKind, end: SignalKind, user: UserId, reason: &str) -> [(SignalKind, Value); 2] {
    [(start, json!({ "user": user })), (end, json!({ "user": user, "reason": reason }))]
}

async fn a_change_of_groups_is_refused_for_every_reason(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (user, nobody) = (stage.verified("ada").await, UserId::new());
    let many: Vec<_> = (0..64).map(|number| format!("group-{number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let rows = [
        (groups(nobody, &["staff"], &[]), ChangeGroupsReason::UserNotFound),
        (groups(user, &["no spaces"], &[]), ChangeGroupsReason::GroupInvalid),
        (groups(user, &many, &[]), ChangeGroupsReason::GroupInvalid),
        (groups(user, &["users"], &["staff"]), ChangeGroupsReason::NothingToDo),
    ];
    for (message, reason) in rows {
        let expected = refusal(GroupsChangeStarted, GroupsChangeFailed, message.user, reason.as_str());
        stage.run(message).await.refused(reason).tells(&expected);
    }
    table.close(stage).await;
}

async fn a_disabling_ends_sessions_and_is_done_once(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let session = stage.login("ada").await.session;
    let ran = stage.run(Disable { user }).await;
    ran.tells(&[
        (UserDisableStarted, json!({ "user": user })),
        (SessionRevoked, json!({ "user": user, "session": session, "cause": "disabled" })),
        (UserDisabled, json!({ "user": user, "version": 3, "sessions_revoked": 1 })),
    ]);
    assert!(ran.lane_of(user) && ran.granted().version == 3);
    for (user, reason) in [(UserId::new(), DisableReason::UserNotFound), (user, DisableReason::NothingToDo)] {
        let expected = refusal(UserDisableStarted, UserDisableFailed, user, reason.as_str());
        stage.run(Disable { user }).await.refused(reason).tells(&expected);
    }
    table.close(stage).await;
}

async fn an_enabling_is_done_once(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.disabled("ada").await;
    let ran = stage.run(Enable { user }).await;
    ran.tells(&[(UserEnableStarted, json!({ "user": user })), (UserEnabled, json!({ "user": user, "version": 4 }))]);
    assert!(ran.lane_of(user) && ran.granted().version == 4);
    for (user, reason) in [(UserId::new(), EnableReason::UserNotFound), (user, EnableReason::NothingToDo)] {
        let expected = refusal(UserEnableStarted, UserEnableFailed, user, reason.as_str());
        stage.run(Enable { user }).await.refused(reason).tells(&expected);
    }
    table.close(stage).await;
}

async fn a_deletion_tells_how_many_sessions_it_ended(table: &mut Table) {
    let mut stage = Stage::new().await;
    let user = stage.verified("ada").await;
    let session = stage.login("ada").await.session;
    let ran = stage.run(Delete::new(user)).await;
    ran.tells(&[
        (UserDeletionStarted, json!({ "user": user })),
        (SessionRevoked, json!({ "user": user, "session": session, "cause": "deleted" })),
        (UserDeleted, json!({ "user": user, "username": "a***", "sessions_revoked": 1, "cause": "requested" })),
    ]);
    assert!(ran.lane_of(user) && ran.granted().sessions_revoked == 1);
    assert_eq!(stage.test.user(user).unwrap(), None);
    table.close(stage).await;
}

async fn a_deletion_is_refused_for_every_reason(table: &mut Table) {
    let mut stage = Stage::new().await;
    let (user, nobody) = (stage.verified("ada").await, UserId::new());
    let never_verified = Delete { user, cause: DeletionCause::NeverVerified };
    let rows = [
        (Delete::new(nobody), DeleteReason::UserNotFound, "user_not_found", Value::Null),
        (never_verified, DeleteReason::NothingToDo, "validation_error", json!("a***")),
    ];
    for (message, reason, error_type, username) in rows {
        let user = message.user;
        let end = json!({ "user": user, "username": username, "error_type": error_type, "reason": reason.as_str() });
        stage
            .run(message)
            .await
            .refused(reason)
            .tells(&[(UserDeletionStarted, json!({ "user": user })), (UserDeletionFailed, end)]);
    }
    table.close(stage).await;
}

async fn an_account_that_was_never_verified_is_deleted_by_the_sweep_with_its_cause(table: &mut Table) {
    let stage = Stage::new().await;
    let (user, verified) = (stage.claimed("eve").await, stage.verified("ada").await);
    stage.test.advance(Duration::from_secs(8 * 24 * 3_600));
    let before = stage.test.head();
    stage.test.sweep().await;
    let log = stage.test.signals(before, 100).await.unwrap();
    let starts = |envelope: &majordomo::Envelope| envelope.signal.kind() == UserDeletionStarted;
    let run = super::stage::run_of(&log, starts);
    super::stage::assert_tells(
        &run,
        &[
            (UserDeletionStarted, json!({ "user": user })),
            (UserDeleted, json!({ "user": user, "sessions_revoked": 0, "cause": "never_verified" })),
        ],
    );
    assert!(run.iter().all(|envelope| envelope.actor == Actor::System));
    assert!(stage.test.user(verified).unwrap().is_some());
    table.close(stage).await;
}
