//! The flow table: every flow, by every way it can end, as its caller and the log see it.
//!
//! A row runs a flow through the public handle and names the whole sequence of its signals with the fields that matter.
//! [`stage`] checks what holds for every row: one start, first, that was heard live before; one end, last; one lane; the
//! command's actor and context in every envelope; each sender as the catalogue has it.

mod contacts;
mod deliveries;
mod entry;
mod imports;
mod passwords;
pub mod stage;
mod undo;
mod users;
mod verification;

use std::collections::BTreeSet;
use std::time::Duration;

use majordomo::{
    AddContactReason, AuthenticateReason, ChangeContactReason, ChangeGroupsReason, ChangePasswordReason,
    ConfirmEmailReason, ConfirmPhoneReason, DeleteReason, DisableReason, EnableReason, EndSessionsReason, Envelope,
    FlowKind, ImportReason, LogOutReason, MakePrimaryReason, Register, RegisterReason, RemoveContactReason,
    RequestEmailVerificationReason, RequestPasswordResetReason, RequestPhoneVerificationReason, ResetPasswordReason,
    SignalKind, UndoChangeReason, UnlockReason, UpdateReason,
};

use stage::{Heard, Stage, Table};

/// Declares the scenarios of a module: each is a test of its own, and a part of the whole table.
macro_rules! scenarios {
    ($($name:ident)+) => {
        pub(super) async fn play(table: &mut Table) {
            $(Box::pin($name(table)).await;)+
        }

        mod each {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(&mut super::Table::default()).await;
                }
            )+
        }
    };
}
use scenarios;

/// Where a reason cannot be provoked through the public handle, it stands in the last column with a sentence why.
macro_rules! assert_reasons_covered {
    ($table:ident: $($flow:ident $reason:ident [$($beyond:ident: $why:literal)*])+) => {$(
        $table.assert_covers(FlowKind::$flow, $reason::ALL, &[$(($reason::$beyond, $why)),*]);
    )+};
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_heard_while_its_flow_hashes_and_its_durable_copy_keeps_id_and_time() {
    let stage = Stage::new().await;
    stage.verified("ada").await;
    let mut heard = Heard::listen(&stage.test).await;
    stage.test.hold_hashing(true);
    let before = stage.test.head();
    let login = stage.test.tell(stage::login("ada", stage::PASSWORD)).unwrap();
    let register =
        stage.test.tell(Register { username: Some("bob".into()), ..Register::new(stage::PASSWORD) }).unwrap();
    // What was committed before may be told live a moment later.
    let live = |envelope: &Envelope| envelope.seq.is_none();
    let told = [heard.next(live).await, heard.next(live).await];
    let kinds: BTreeSet<_> = told.iter().map(|live| live.signal.kind()).collect();
    assert_eq!(kinds, [SignalKind::UserRegistrationStarted, SignalKind::UserAuthenticationStarted].into());
    assert_eq!(stage.test.head(), before, "nothing is written before the end");
    stage.test.advance(Duration::from_secs(5));
    stage.test.hold_hashing(false);
    login.await.unwrap().unwrap();
    register.await.unwrap().unwrap();
    let log = stage.test.signals(before, 100).await.unwrap();
    for live in told {
        let kind = live.signal.kind();
        let run = stage::run_of(&log, |envelope| envelope.signal.kind() == kind);
        assert_eq!((run[0].id, run[0].at, run[0].flow), (live.id, live.at, live.flow));
        assert_eq!(run[run.len() - 1].at, live.at.plus(Duration::from_secs(5)), "the end has its own time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_every_reason_and_every_one_of_the_32_signals_is_in_the_table() {
    let mut table = Table::default();
    entry::play(&mut table).await;
    passwords::play(&mut table).await;
    verification::play(&mut table).await;
    contacts::play(&mut table).await;
    users::play(&mut table).await;
    undo::play(&mut table).await;
    imports::play(&mut table).await;
    deliveries::play(&mut table).await;
    assert_reasons_covered! { table:
        Register RegisterReason []
        Authenticate AuthenticateReason []
        LogOut LogOutReason []
        EndSessions EndSessionsReason []
        ChangePassword ChangePasswordReason []
        RequestEmailVerification RequestEmailVerificationReason []
        ConfirmEmail ConfirmEmailReason []
        RequestPhoneVerification RequestPhoneVerificationReason []
        ConfirmPhone ConfirmPhoneReason []
        AddContact AddContactReason []
        ChangeContact ChangeContactReason []
        RemoveContact RemoveContactReason []
        MakePrimary MakePrimaryReason []
        Update UpdateReason []
        ChangeGroups ChangeGroupsReason []
        Disable DisableReason []
        Enable EnableReason []
        Delete DeleteReason []
        RequestPasswordReset RequestPasswordResetReason []
        ResetPassword ResetPasswordReason []
        UndoChange UndoChangeReason []
        Unlock UnlockReason []
        Import ImportReason [HashNotBuiltIn: "these tests have the feature that builds them in"]
    }
    let missing = |kind: &&SignalKind| kind.number() <= 32 && !table.kinds.contains(*kind);
    assert_eq!(SignalKind::ALL.iter().find(missing), None, "a source signal was never emitted");
    assert_eq!(SignalKind::ALL.iter().filter(|kind| kind.number() <= 32).count(), 32);
    for flow in FlowKind::ALL {
        let ends: Vec<_> = flow.ends().filter(|end| table.kinds.contains(end)).collect();
        assert!(ends.len() >= 2, "{flow:?} was seen with the ends {ends:?} only");
    }
}
