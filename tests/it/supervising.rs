//! Supervising: the tree as one picture, the handle inside actors, and no answer or signal lost when an actor dies.

use std::collections::BTreeSet;
use std::time::Duration;

use majordomo::ractor::{self, Actor, ActorProcessingErr, ActorRef, RpcReplyPort, concurrency::oneshot};
use majordomo::testing::{START, TestAccounts};
use majordomo::{
    Accepted, Accounts, ActorStatus, Answer, Authenticate, Command, CommandId, Delete, Disable, DisableReason, Error,
    Failure, Filter, OrderError, Password, Register, RegisterReason, Signal, SignalKind, Start, Tree, Update, UserId,
    UserStatus,
};

use crate::listening::{PASSWORD, Recorder, login, register, soon, until};

fn registration(username: &str) -> Register {
    Register { username: Some(username.to_owned()), ..Register::new(PASSWORD) }
}

/// Whether each user of the list registered once, by the log.
fn registered(test: &TestAccounts) -> Vec<UserId> {
    let registered = test.recorded().into_iter().filter_map(|told| match told.signal {
        Signal::UserRegistered { user, .. } => Some(user),
        _ => None,
    });
    registered.collect()
}

fn assert_gapless(test: &TestAccounts) {
    let places: Vec<_> = test.recorded().iter().map(|told| told.seq.unwrap()).collect();
    assert_eq!(places, (1..=test.head()).collect::<Vec<_>>());
}

fn assert_each_flow_has_one_start_and_one_end(test: &TestAccounts) {
    let recorded = test.recorded();
    for flow in recorded.iter().map(|told| told.flow).collect::<BTreeSet<_>>() {
        let of_flow = || recorded.iter().filter(|told| told.flow == flow).map(|told| told.signal.kind());
        let (starts, ends) = (
            of_flow().filter(|kind| !kind.starts().is_empty()).count(),
            of_flow().filter(|kind| !kind.ends().is_empty()).count(),
        );
        assert!((starts, ends) == (1, 1) || (starts, ends) == (0, 0), "{:?}", of_flow().collect::<Vec<_>>());
    }
}

/// Every actor of a subtree, each before those under it.
fn walk(actor: &serde_json::Value) -> Vec<&serde_json::Value> {
    let below = actor["children"].as_array().unwrap().iter().flat_map(walk);
    std::iter::once(actor).chain(below).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_serialises_to_json_and_shows_every_actor_in_the_same_shape() {
    let test = TestAccounts::start().await;
    soon(test.subscribe("books", Filter::all(), Start::Beginning, Recorder::default())).await.unwrap();
    register(&test, "ada").await;
    soon(test.drain()).await;
    let tree = soon(test.tree()).await;
    let json = serde_json::to_value(&tree).unwrap();
    assert_eq!(serde_json::from_value::<Tree>(json.clone()).unwrap(), tree);
    let names = |actor: &serde_json::Value| {
        actor["children"].as_array().unwrap().iter().map(|child| child["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&json["root"]), ["storage", "hasher", "user_manager", "subscribers"]);
    assert_eq!(names(&json["root"]["children"][3]), ["auditor", "notifier", "books"]);
    let actors = walk(&json["root"]);
    assert_eq!(actors.len(), 8);
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let shape = ["children", "gauge", "last_failure", "name", "recent_failures", "restarts", "state", "status"];
    for actor in &actors {
        assert!(keys(actor).iter().eq(shape), "{actor}");
        assert_eq!(
            (&actor["status"], &actor["restarts"], &actor["last_failure"]),
            (&"running".into(), &0.into(), &().into())
        );
        assert!(keys(&actor["gauge"]).iter().eq(["handled", "last_micros", "max_micros", "queue_depth"]));
    }
    for name in ["storage", "hasher", "user_manager", "subscribers"] {
        assert!(tree.actor(name).unwrap().gauge.handled >= 1, "{name}");
    }
    assert!(tree.actor("hasher").unwrap().gauge.max_micros >= 1);
    let books = tree.subscription("books").unwrap();
    assert_eq!((books.floor, books.lag), (test.head(), 0));
    assert!(tree.storage().unwrap().available && tree.storage().unwrap().transactions >= 1);
    assert!(tree.hasher().unwrap().jobs_done >= 1 && tree.user_manager().unwrap().admits);
    assert!(!tree.system.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_tells_when_an_actor_failed_and_is_drawn_once_everybody_has_stopped() {
    let test = TestAccounts::start().await;
    test.advance(Duration::from_secs(60));
    soon(test.kill("subscribers")).await;
    soon(test.kill("hasher")).await;
    let restarted = async {
        while restarts(&test).await != [0, 1, 0, 1] {
            tokio::task::yield_now().await;
        }
    };
    soon(restarted).await;
    let tree = soon(test.tree()).await;
    assert_eq!(tree.root.status, ActorStatus::Running);
    for name in ["hasher", "subscribers"] {
        let actor = tree.actor(name).unwrap();
        let last = actor.last_failure.as_ref().unwrap();
        assert_eq!((actor.restarts, last.failure.as_str()), (1, "killed"), "{name}");
        assert_eq!(last.at.since(START), Duration::from_secs(60));
    }
    assert!(tree.actor("storage").unwrap().last_failure.is_none());
    assert!(soon(test.shutdown()).await);
    let tree = soon(test.tree()).await;
    assert_eq!(tree.actors().len(), 7);
    assert!(tree.actors().iter().all(|actor| actor.status == ActorStatus::Stopped), "{tree:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_subscriber_hears_nothing_more_and_its_name_goes_on_from_the_cursor() {
    let test = TestAccounts::start().await;
    let (first, second) = (Recorder::default(), Recorder::default());
    soon(test.subscribe("books", Filter::all(), Start::Beginning, first.clone())).await.unwrap();
    register(&test, "ada").await;
    soon(test.drain()).await;
    let reached = test.head();
    soon(test.detach("books")).await.unwrap();
    assert!(soon(test.tree()).await.actor("books").is_none());
    for name in ["books", "nobody", "storage"] {
        assert_eq!(soon(test.detach(name)).await, Err(OrderError::UnknownName), "{name}");
        assert_eq!(soon(test.release(name)).await, Err(OrderError::UnknownName), "{name}");
    }
    assert_eq!(soon(test.release("auditor")).await, Err(OrderError::NotQuarantined));
    register(&test, "bob").await;
    // Whoever waits for the subscribers does not wait for one that is gone, nor does their supervisor bring it back.
    soon(test.drain()).await;
    soon(test.kill("subscribers")).await;
    soon(test.kill("auditor")).await;
    soon(test.drain()).await;
    assert_eq!(first.places().last(), Some(&reached));

    soon(test.subscribe("books", Filter::all(), Start::Beginning, second.clone())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(second.places(), (reached + 1..=test.head()).collect::<Vec<_>>());
    assert!(soon(test.shutdown()).await);
    assert_eq!(soon(test.detach("books")).await, Err(OrderError::Stopped));
}

// The handle inside an actor of the app.

enum FrontDeskMessage {
    /// Answered by the system, past this actor.
    Register(Register, RpcReplyPort<Answer<Register>>),
    /// Answered to nobody.
    Forget(Update),
    /// Answered by this actor, which asked without waiting.
    Registered(Register, RpcReplyPort<bool>),
}

struct FrontDesk;

#[ractor::actor(message = FrontDeskMessage, state = Accounts, arguments = Accounts)]
impl FrontDesk {
    async fn pre_start(
        &self,
        _myself: ActorRef<FrontDeskMessage>,
        accounts: Accounts,
    ) -> Result<Accounts, ActorProcessingErr> {
        Ok(accounts)
    }

    async fn handle(
        &self,
        _myself: ActorRef<FrontDeskMessage>,
        message: FrontDeskMessage,
        accounts: &mut Accounts,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            FrontDeskMessage::Register(request, port) => accounts.tell_to(request, port),
            FrontDeskMessage::Forget(update) => drop(accounts.tell(update)?),
            FrontDeskMessage::Registered(request, port) => {
                let answer = accounts.tell(request)?;
                tokio::spawn(async move { port.send(matches!(answer.await, Ok(Ok(_)))) });
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handle_works_inside_an_actor_by_tell_and_tell_to() {
    let test = TestAccounts::start().await;
    let (desk, _) = Actor::spawn(None, FrontDesk, test.accounts().clone()).await.unwrap();
    let (port, answer) = oneshot();
    desk.cast(FrontDeskMessage::Register(registration("ada"), port.into())).unwrap();
    let ada = soon(answer).await.unwrap().unwrap().user;
    let (port, answer) = oneshot();
    desk.cast(FrontDeskMessage::Register(registration("ada"), port.into())).unwrap();
    assert_eq!(soon(answer).await.unwrap(), Err(Error::Refused(RegisterReason::UsernameTaken)));
    let (port, answer) = oneshot();
    desk.cast(FrontDeskMessage::Registered(registration("bob"), port.into())).unwrap();
    assert!(soon(answer).await.unwrap());

    // A port that nobody listens to, and a receiver that is dropped: done all the same.
    let (port, answer) = oneshot::<Answer<Register>>();
    drop(answer);
    desk.cast(FrontDeskMessage::Register(registration("eve"), port.into())).unwrap();
    let display_name = majordomo::Change::Set("Ada".to_owned());
    desk.cast(FrontDeskMessage::Forget(Update { display_name, ..Update::new(ada) })).unwrap();
    until(|| test.find_user("eve").unwrap().is_some()).await;
    until(|| test.user(ada).unwrap().unwrap().profile.display_name.as_deref() == Some("Ada")).await;

    assert!(soon(test.shutdown()).await);
    let (port, answer) = oneshot();
    desk.cast(FrontDeskMessage::Register(registration("fay"), port.into())).unwrap();
    assert_eq!(soon(answer).await.unwrap(), Err(Error::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_tasks_send_the_same_messages_through_one_handle() {
    let test = TestAccounts::start().await;
    let tasks = (0..50).map(|number| {
        let accounts = test.accounts().clone();
        tokio::spawn(async move {
            let name = format!("user{number}");
            let user = accounts.register(registration(&name)).await.unwrap().user;
            let session = accounts.authenticate(login(&name)).await.unwrap();
            let display_name = majordomo::Change::Set(name.clone());
            let version = accounts.update(Update { display_name, ..Update::new(user) }).await.unwrap().version;
            let (alive, found) = accounts.check_session(&session.token).unwrap().unwrap();
            assert_eq!((alive.user, found.profile.display_name, version), (user, Some(name), 2));
            user
        })
    });
    let mut users = BTreeSet::new();
    for task in tasks.collect::<Vec<_>>() {
        users.insert(soon(task).await.unwrap());
    }
    assert_eq!(users.len(), 50);
    // And the very same message from fifty tasks is done once: one name, one owner; one command, one flow.
    let (command, same) =
        (Command::new(registration("same")), Command::new(registration("other")).id(CommandId::new()));
    let tasks = (0..50).map(|_| {
        let (accounts, command, same) = (test.accounts().clone(), command.message.clone(), same.clone());
        tokio::spawn(async move { (accounts.register(command).await, accounts.register(same).await) })
    });
    let (mut once, mut repeated) = (Vec::new(), BTreeSet::new());
    for task in tasks.collect::<Vec<_>>() {
        let (by_name, by_command) = soon(task).await.unwrap();
        match by_name {
            Ok(accepted) => once.push(accepted.user),
            Err(error) => assert_eq!(error, Error::Refused(RegisterReason::UsernameTaken)),
        }
        repeated.insert(by_command.unwrap().user);
    }
    assert_eq!((once.len(), repeated.len(), registered(&test).len()), (1, 1, 52));
    assert_gapless(&test);
    assert_each_flow_has_one_start_and_one_end(&test);
}

// Actors that die.

async fn restarts(test: &TestAccounts) -> Vec<u64> {
    soon(test.tree()).await.root.children.iter().map(|child| child.restarts).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handle_survives_the_death_of_every_actor_and_following_requests_are_answered() {
    let test = TestAccounts::start().await;
    let recorder = Recorder::default();
    soon(test.subscribe("books", Filter::all(), Start::Beginning, recorder.clone())).await.unwrap();
    let actors = ["storage", "hasher", "user_manager", "subscribers", "auditor", "notifier", "books"];
    for actor in actors {
        soon(test.kill(actor)).await;
        let user = register(&test, actor).await;
        let session = soon(test.authenticate(login(actor))).await.unwrap();
        assert_eq!(session.user, user, "after {actor}");
    }
    assert_eq!(restarts(&test).await, [1, 1, 1, 1]);
    soon(test.drain()).await;
    assert_eq!(registered(&test).len(), actors.len());
    assert_heard_at_least_once_in_order(&recorder, &test);
    let records = soon(test.audit(majordomo::AuditQuery { limit: 1_000, ..Default::default() })).await.unwrap();
    assert_eq!(records.records.len() as u64, test.head());
    assert!(soon(test.shutdown()).await);
}

/// Every signal, the first time in the order of the log; a second time only after a restart has gone back.
fn assert_heard_at_least_once_in_order(recorder: &Recorder, test: &TestAccounts) {
    let mut reached = 0;
    for place in recorder.places() {
        assert!(place <= reached + 1, "{place} after {reached}: something was skipped");
        reached = reached.max(place);
    }
    assert_eq!(reached, test.head());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_answered_when_an_actor_dies_and_nothing_is_done_twice() {
    for actor in ["storage", "hasher", "user_manager"] {
        let test = TestAccounts::start().await;
        let ada = register(&test, "ada").await;
        test.hold_hashing(true);
        let same = Command::new(registration("bob")).id(CommandId::new());
        let ask = |command: &Command<Register>| {
            let (accounts, command) = (test.accounts().clone(), command.clone());
            tokio::spawn(async move { accounts.register(command).await })
        };
        let (first, second) = (ask(&same), ask(&same));
        until(|| test.hasher_state().queued == 1).await;
        soon(test.kill(actor)).await;
        test.hold_hashing(false);
        let disabled = soon(test.disable(Disable { user: ada })).await;
        let (first, second) = (soon(first).await.unwrap().unwrap(), soon(second).await.unwrap().unwrap());
        let third = soon(test.register(same)).await.unwrap();
        assert_eq!((first, second), (third, third), "{actor}");
        disabled.unwrap();
        assert_eq!(test.user(ada).unwrap().unwrap().status, UserStatus::Disabled);
        assert_eq!(registered(&test), [ada, first.user]);
        assert_gapless(&test);
        assert_each_flow_has_one_start_and_one_end(&test);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_registrations_are_answered_though_each_actor_dies_three_times() {
    let test = TestAccounts::start().await;
    let (books, few) = (Recorder::default(), Recorder::default());
    soon(test.subscribe("books", Filter::all(), Start::Beginning, books.clone())).await.unwrap();
    let only = Filter::kinds([SignalKind::UserRegistered]);
    soon(test.subscribe("few", only, Start::Beginning, few.clone())).await.unwrap();
    let send = |numbers: std::ops::Range<u32>| {
        let task = |number| {
            let accounts = test.accounts().clone();
            tokio::spawn(async move { accounts.register(registration(&format!("user{number}"))).await })
        };
        numbers.map(task).collect::<Vec<_>>()
    };
    // Half of them wait for the hasher while everything dies under them, and go on as everything dies again.
    test.hold_hashing(true);
    let mut tasks = send(0..50);
    until(|| test.hasher_state().queued == 50).await;
    for round in 0..3 {
        soon(test.kill("user_manager")).await;
        if round == 1 {
            tasks.extend(send(50..100));
        }
        for actor in ["storage", "hasher", "books"] {
            soon(test.kill(actor)).await;
        }
        test.hold_hashing(false);
    }
    let mut users = BTreeSet::new();
    for task in tasks {
        users.insert(soon(task).await.unwrap().unwrap().user);
    }
    // What came before the last death is answered, and so is what comes after it.
    for name in ["fay", "gil"] {
        users.insert(register(&test, name).await);
    }
    soon(test.drain()).await;
    assert_eq!(users.len(), 102);
    assert_eq!(registered(&test).into_iter().collect::<BTreeSet<_>>(), users);
    assert_eq!((registered(&test).len(), soon(test.users(None, 1_000)).await.unwrap().len()), (102, 102));
    assert_gapless(&test);
    assert_each_flow_has_one_start_and_one_end(&test);
    assert_heard_at_least_once_in_order(&books, &test);
    let heard: BTreeSet<_> = few.places().into_iter().collect();
    assert_eq!(heard.len(), 102);
    assert_eq!(restarts(&test).await, [3, 3, 3, 0]);
}

// Deadlines.

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_is_told_and_repeating_the_command_gives_the_outcome() {
    let test = TestAccounts::start().await;
    test.hold_hashing(true);
    let command = Command::new(registration("ada")).id(CommandId::new());
    let hurried = command.clone().deadline(Duration::from_millis(50));
    let late = soon(test.register(hurried)).await.unwrap_err();
    assert_eq!(late, Error::DeadlineExceeded);
    assert!(late.is_transient() && late.is_unknown());
    test.hold_hashing(false);
    let accepted = soon(test.register(command.clone())).await.unwrap();
    assert_eq!(soon(test.register(command)).await.unwrap(), accepted);
    assert_eq!(registered(&test), [accepted.user]);
    let failed = test.recorded().into_iter().filter_map(|told| match told.signal {
        Signal::UserRegistrationFailed { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(failed.collect::<Vec<_>>(), [Failure::DeadlineExceeded], "the run that was given up has its end");
    assert_each_flow_has_one_start_and_one_end(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_before_the_deadline_is_done_after_it_and_repeating_the_command_tells() {
    let test = TestAccounts::start().await;
    let ada = register(&test, "ada").await;
    // The commit finds no disk, and is made good once it is back.
    test.disk().cut_power_after(0);
    let command = Command::new(Disable { user: ada }).id(CommandId::new());
    let hurried = command.clone().deadline(Duration::from_millis(50));
    assert_eq!(soon(test.disable(hurried)).await, Err(Error::DeadlineExceeded));
    test.disk().heal();
    until(|| test.storage_state().available).await;
    let outcome = soon(test.disable(command.clone())).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(soon(test.disable(command)).await, outcome);
    assert_eq!(soon(test.disable(Disable { user: ada })).await, Err(Error::Refused(DisableReason::NothingToDo)));
    let disabled = test.kinds_of(ada).into_iter().filter(|kind| *kind == SignalKind::UserDisabled);
    assert_eq!(disabled.count(), 1);
}

// The runtime.

#[test]
fn a_system_runs_inside_a_current_thread_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let test = TestAccounts::start().await;
        let recorder = Recorder::default();
        soon(test.subscribe("books", Filter::all(), Start::Beginning, recorder.clone())).await.unwrap();
        let accepted: Accepted = soon(test.register(registration("ada"))).await.unwrap();
        let wrong = Authenticate { identifier: "ada".to_owned(), password: Password::new("wrong, and long enough") };
        assert!(soon(test.authenticate(wrong)).await.is_err());
        let session = soon(test.authenticate(login("ada"))).await.unwrap();
        assert_eq!(test.check_session(&session.token).unwrap().unwrap().1.id, accepted.user);
        soon(test.kill("storage")).await;
        register(&test, "bob").await;
        soon(test.drain()).await;
        assert_heard_at_least_once_in_order(&recorder, &test);
        assert!(soon(test.shutdown()).await);
    });
}

#[test]
fn the_last_handle_may_be_dropped_outside_the_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let accounts = runtime.block_on(async { Accounts::builder().in_memory().spawn().await.unwrap() });
    drop(runtime);
    drop(accounts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_whose_core_keeps_dying_stops_and_leaves_nobody_hanging() {
    let test = TestAccounts::start().await;
    register(&test, "ada").await;
    for _ in 0..6 {
        soon(test.kill("hasher")).await;
    }
    let stopped = async {
        loop {
            let command = Command::new(Delete::new(UserId::new())).deadline(Duration::from_secs(5));
            if test.delete(command).await == Err(Error::Stopped) {
                break;
            }
        }
    };
    soon(stopped).await;
    let dead = async {
        loop {
            let health = test.health().await;
            assert!(!health.ready);
            if !health.live {
                break health;
            }
        }
    };
    assert!(soon(dead).await.is_degraded());
    let again = soon(test.restart()).await.unwrap();
    assert!(again.find_user("ada").unwrap().is_some(), "what was answered is there");
}
