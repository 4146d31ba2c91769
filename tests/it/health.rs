//! Health: every fault is told while its cause is there, and not a moment longer.

use std::time::Duration;

use majordomo::notifier::{CapturedOutbox, NotifierSettings};
use majordomo::testing::TestAccounts;
use majordomo::{
    Accounts, ActorStatus, Builder, Capability, Channel, Command, Disable, Filter, HashParameters, Health, HealthFault,
    OrderError, Requirement, SignalKind, Start, Subscription, UserId,
};

use crate::listening::{Recorder, register, soon};

/// Looks until the health is as expected; the look is bounded.
async fn healthy_when<T>(look: impl AsyncFn() -> Health, is: impl Fn(&Health) -> Option<T>) -> T {
    soon(async {
        loop {
            if let Some(found) = is(&look().await) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

fn names(health: &Health) -> Vec<&'static str> {
    health.faults.iter().map(HealthFault::as_str).collect()
}

fn sound(health: &Health) -> Option<()> {
    (health.live && health.ready && !health.is_degraded()).then_some(())
}

/// A system with these transports, the builder being changed so.
async fn spawn(channels: &[Channel], change: impl FnOnce(Builder) -> Builder) -> Accounts {
    let outbox = CapturedOutbox::new();
    let builder = Accounts::builder().in_memory().configure(|config| {
        config.hashing.parameters = HashParameters::cheap_for_tests();
        config.hashing.queue = Some(100);
        config.messages = Some(NotifierSettings::new("Example", "https://example.com/"));
    });
    let builder = channels.iter().fold(builder, |builder, channel| builder.transport(outbox.transport(*channel)));
    soon(change(builder).spawn()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_system_is_live_and_ready_without_a_fault_until_it_is_shut_down() {
    let test = TestAccounts::start().await;
    register(&test, "ada").await;
    soon(test.drain()).await;
    let health = soon(test.health()).await;
    assert_eq!(health, Health { live: true, ready: true, faults: Vec::new() });
    assert_eq!(serde_json::to_string(&health).unwrap(), r#"{"live":true,"ready":true,"faults":[]}"#);
    assert!(soon(test.shutdown()).await);
    let health = soon(test.health()).await;
    assert!(!health.live && !health.ready);
    assert_eq!(names(&health), ["storage_unavailable"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_out_is_a_fault_and_nothing_can_be_served_until_it_is_back() {
    let test = TestAccounts::start().await;
    let ada = register(&test, "ada").await;
    test.disk().cut_power_after(0);
    let hurried = Command::new(Disable { user: ada }).deadline(Duration::from_millis(50));
    assert!(soon(test.disable(hurried)).await.is_err());
    let out = |health: &Health| health.faults.contains(&HealthFault::StorageUnavailable).then(|| health.clone());
    let health = healthy_when(|| test.health(), out).await;
    assert!(health.live && !health.ready);
    let tree = soon(test.tree()).await;
    assert!(tree.actor("storage").unwrap().last_failure.is_some(), "it tells why");
    test.disk().heal();
    healthy_when(|| test.health(), sound).await;
}

#[tokio::test]
async fn an_actor_that_is_being_restarted_is_a_fault_until_it_runs_again() {
    let test = TestAccounts::start().await;
    for (actor, is_core) in [("hasher", true), ("user_manager", true), ("subscribers", false), ("auditor", false)] {
        // While the clock stands still, so does the back-off.
        tokio::time::pause();
        soon(test.kill(actor)).await;
        let fault = HealthFault::ActorRestarting { name: actor.to_owned() };
        let restarting = |health: &Health| health.faults.contains(&fault).then(|| health.clone());
        let health = healthy_when(|| test.health(), restarting).await;
        assert!(health.live, "{actor}");
        assert_eq!(health.ready, !is_core, "{actor}");
        tokio::time::resume();
        healthy_when(|| test.health(), sound).await;
    }
    register(&test, "ada").await;
}

#[tokio::test]
async fn a_subscription_whose_actor_keeps_dying_is_quarantined_alone_and_once_released_goes_on_from_its_cursor() {
    let test = TestAccounts::start().await;
    let recorder = Recorder::default();
    let only = Filter::kinds([SignalKind::UserRegistered]);
    soon(test.subscribe("books", only, Start::Beginning, recorder.clone())).await.unwrap();
    register(&test, "ada").await;
    soon(test.drain()).await;
    let status = async || soon(test.tree()).await.actor("books").unwrap().status;
    // The clock stands still but for the pauses between the restarts.
    tokio::time::pause();
    let mut kills = 0;
    for _ in 0..100_000 {
        match status().await {
            ActorStatus::Quarantined => break,
            ActorStatus::Running => {
                test.kill("books").await;
                kills += 1;
            }
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    tokio::time::resume();
    assert_eq!(status().await, ActorStatus::Quarantined);
    assert!(kills > 20, "{kills}");
    let health = soon(test.health()).await;
    assert_eq!(health.faults, [HealthFault::ActorQuarantined { name: "books".to_owned() }]);
    assert!(health.live && health.ready);
    register(&test, "bob").await;
    assert_eq!(recorder.places().len(), 1);

    assert_eq!(soon(test.release("auditor")).await, Err(OrderError::NotQuarantined));
    soon(test.release("books")).await.unwrap();
    soon(test.drain()).await;
    let registered = test.recorded().into_iter().filter(|told| told.signal.kind() == SignalKind::UserRegistered);
    assert_eq!(recorder.places(), registered.map(|told| told.seq.unwrap()).collect::<Vec<_>>());
    assert_eq!(soon(test.release("books")).await, Err(OrderError::NotQuarantined));
    healthy_when(|| test.health(), sound).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_nobody_gave_to_the_process_is_a_fault_with_its_lag_and_keeps_its_cursor() {
    let test = TestAccounts::start().await;
    let first = Recorder::default();
    soon(test.subscribe("books", Filter::all(), Start::Beginning, first)).await.unwrap();
    register(&test, "ada").await;
    soon(test.drain()).await;
    let test = soon(test.restart()).await.unwrap();
    let unattached = |health: &Health| match health.faults.as_slice() {
        [HealthFault::SubscriptionUnattached { name, floor, lag }] if name == "books" => Some((*floor, *lag)),
        _ => None,
    };
    let (floor, lag) = unattached(&soon(test.health()).await).unwrap();
    assert_eq!(floor + lag, test.head());
    register(&test, "bob").await;
    let health = soon(test.health()).await;
    assert_eq!(unattached(&health), Some((floor, test.head() - floor)));
    assert!(health.ready);

    let second = Recorder::default();
    soon(test.subscribe("books", Filter::all(), Start::Beginning, second.clone())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(second.places(), (floor + 1..=test.head()).collect::<Vec<_>>());
    healthy_when(|| test.health(), sound).await;
    soon(test.detach("books")).await.unwrap();
    assert_eq!(unattached(&soon(test.health()).await), Some((test.head(), 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_whose_messages_nobody_delivers_is_a_fault_where_users_may_have_such_an_address() {
    let silent = |channels: &[Channel]| -> Vec<HealthFault> {
        channels.iter().map(|channel| HealthFault::NoNotifier { channel: *channel }).collect()
    };
    let both = [Channel::Email, Channel::Phone];
    let accounts = spawn(&[], |builder| builder).await;
    assert_eq!(soon(accounts.health()).await.faults, silent(&both));
    assert!(soon(accounts.health()).await.ready);

    let no_phone = |builder: Builder| builder.configure(|config| config.policy.phone = Requirement::Forbidden);
    let accounts = spawn(&[], no_phone).await;
    assert_eq!(soon(accounts.health()).await.faults, silent(&[Channel::Email]));
    let accounts = spawn(&[Channel::Email], no_phone).await;
    assert_eq!(soon(accounts.health()).await.faults, []);

    let accounts = spawn(&[Channel::Email], |builder| builder).await;
    let texts = |kinds: &[SignalKind]| {
        Subscription::new("texts", Recorder::default()).filter(Filter::kinds(kinds.iter().copied()))
    };
    let (verify, reset) = (SignalKind::VerifyPhone, SignalKind::ResetPasswordPhone);
    for (subscription, faults) in [
        (texts(&[verify, reset]), silent(&[Channel::Phone])),
        (texts(&[verify]).capability(Capability::Deliver), silent(&[Channel::Phone])),
        (texts(&[verify, reset]).capability(Capability::Deliver), silent(&[])),
    ] {
        soon(accounts.add(subscription)).await.unwrap();
        assert_eq!(soon(accounts.health()).await.faults, faults);
        soon(accounts.detach("texts")).await.unwrap();
        let left = soon(accounts.health()).await.faults;
        assert!(left.contains(&HealthFault::NoNotifier { channel: Channel::Phone }), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_the_health_holds_up_no_request_while_hashing_stands_still() {
    let test = TestAccounts::start().await;
    test.hold_hashing(true);
    let accounts = test.accounts().clone();
    let waiting = tokio::spawn(async move { accounts.disable(Disable { user: UserId::new() }).await });
    assert!(soon(test.health()).await.ready);
    assert!(soon(waiting).await.unwrap().is_err(), "what needs no hash is answered");
    test.hold_hashing(false);
}
