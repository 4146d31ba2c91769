//! What a supervisor promises, on a small actor that can fail in every way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc;

use super::*;
use crate::address::{Address, AskError, Binder};

enum WorkerMessage {
    Say(u32, Reply<u32>),
    Panic(Reply<u32>),
    Fail(Reply<u32>),
    Finish(Reply<u32>),
    Hang(Reply<u32>),
}

struct Worker;

struct Trade {
    name: &'static str,
    log: Log,
    failing_starts: Arc<AtomicU32>,
}

type Log = Arc<Mutex<Vec<String>>>;

#[ractor::actor(message = WorkerMessage, state = Trade, arguments = Trade)]
impl Worker {
    async fn pre_start(&self, _myself: ActorRef<WorkerMessage>, trade: Trade) -> Result<Trade, ActorProcessingErr> {
        let fails = |left: u32| left.checked_sub(1);
        if trade.failing_starts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
            return Err("not yet".into());
        }
        trade.log.lock().unwrap().push(format!("start {}", trade.name));
        Ok(trade)
    }

    async fn handle(
        &self,
        myself: ActorRef<WorkerMessage>,
        message: WorkerMessage,
        _trade: &mut Trade,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WorkerMessage::Say(number, reply) => reply.send(number),
            WorkerMessage::Panic(_reply) => panic!("panic on request"),
            WorkerMessage::Fail(_reply) => return Err("error on request".into()),
            WorkerMessage::Finish(reply) => {
                myself.stop(None);
                reply.send(0);
            }
            WorkerMessage::Hang(_reply) => std::future::pending().await,
        }
        Ok(())
    }

    async fn post_stop(&self, _myself: ActorRef<WorkerMessage>, trade: &mut Trade) -> Result<(), ActorProcessingErr> {
        trade.log.lock().unwrap().push(format!("stop {}", trade.name));
        Ok(())
    }
}

/// What a test holds of one worker.
struct Handle {
    address: Address<WorkerMessage>,
    current: Arc<Mutex<Option<ActorCell>>>,
    failing_starts: Arc<AtomicU32>,
}

impl Handle {
    async fn say(&self, number: u32) -> Result<u32, AskError> {
        self.address.ask(None, |reply| WorkerMessage::Say(number, reply)).await
    }

    async fn panic(&self) {
        assert_eq!(self.address.ask(None, WorkerMessage::Panic).await, Err(AskError::Interrupted));
    }

    fn kill(&self) {
        self.current.lock().unwrap().as_ref().unwrap().kill();
    }
}

fn worker(name: &'static str, log: &Log) -> (Child, Handle) {
    let (address, binder) = Address::new(8);
    let (current, failing_starts) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU32::new(0)));
    let child = Child::new(name, {
        let (log, current, failing_starts) = (Arc::clone(log), Arc::clone(&current), Arc::clone(&failing_starts));
        move |supervisor| start_worker(name, supervisor, binder.clone(), &log, &current, &failing_starts)
    });
    (child, Handle { address, current, failing_starts })
}

fn start_worker(
    name: &'static str,
    supervisor: ActorCell,
    binder: Binder<WorkerMessage>,
    log: &Log,
    current: &Arc<Mutex<Option<ActorCell>>>,
    failing_starts: &Arc<AtomicU32>,
) -> impl Future<Output = Result<ActorCell, SpawnErr>> + Send + use<> {
    let trade = Trade { name, log: Arc::clone(log), failing_starts: Arc::clone(failing_starts) };
    let current = Arc::clone(current);
    async move {
        let (actor, _) = supervisor.spawn_linked(None, Worker, trade).await?;
        *current.lock().unwrap() = Some(actor.get_cell());
        Ok(binder.bind(actor))
    }
}

/// A running supervisor and what it noted.
struct Running {
    address: Address<SupervisorMessage>,
    actor: ActorRef<SupervisorMessage>,
    handle: JoinHandle<()>,
    notes: mpsc::UnboundedReceiver<SupervisionNote>,
}

impl Running {
    async fn spawn(plan: Plan) -> Self {
        let (sender, notes) = mpsc::unbounded_channel();
        let plan = plan.on_event(move |note| sender.send(note).unwrap_or_default());
        let (actor, handle) = spawn_supervisor(plan, None).await.unwrap();
        let (address, binder) = Address::new(8);
        binder.bind(actor.clone());
        // The first answer comes after the first starts.
        address.ask(None, SupervisorMessage::Observe).await.unwrap();
        Self { address, actor, handle, notes }
    }

    async fn child(&self, name: &str) -> ChildState {
        let state = self.address.ask(None, SupervisorMessage::Observe).await.unwrap();
        state.children.into_iter().find(|child| child.name == name).unwrap()
    }

    async fn restarted(&mut self) -> (String, usize, String) {
        match self.notes.recv().await {
            Some(SupervisionNote::Restarted { name, attempt, failure }) => (name, attempt, failure),
            other => panic!("expected a restart, got {other:?}"),
        }
    }

    async fn order(
        &self,
        build: impl FnOnce(Reply<Result<(), SupervisionError>>) -> SupervisorMessage,
    ) -> Result<(), SupervisionError> {
        self.address.ask(None, build).await.unwrap()
    }
}

fn log() -> Log {
    Log::default()
}

fn entries(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn a_child_that_panicked_erred_or_was_killed_runs_again() {
    let (child, hand) = worker("a", &log());
    let mut running = Running::spawn(Plan::new(Limits::default()).child(child)).await;
    hand.panic().await;
    assert_eq!(running.restarted().await, ("a".into(), 1, "panic on request".into()));
    assert_eq!(hand.address.ask(None, WorkerMessage::Fail).await, Err(AskError::Interrupted));
    assert_eq!(running.restarted().await, ("a".into(), 2, "error on request".into()));
    hand.kill();
    assert_eq!(running.restarted().await, ("a".into(), 3, "killed".into()));
    assert_eq!(hand.say(5).await, Ok(5));
    let state = running.child("a").await;
    assert_eq!((state.status, state.restarts, state.recent_failures), (ChildStatus::Running, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_child_runs_again_only_if_permanent() {
    let log = log();
    let (permanent, permanent_hand) = worker("permanent", &log);
    let (transient, transient_hand) = worker("transient", &log);
    let plan = Plan::new(Limits::default()).child(permanent).child(transient.restart(Restart::Transient));
    let mut running = Running::spawn(plan).await;
    assert_eq!(transient_hand.address.ask(None, WorkerMessage::Finish).await, Ok(0));
    assert_eq!(permanent_hand.address.ask(None, WorkerMessage::Finish).await, Ok(0));
    assert_eq!(running.restarted().await, ("permanent".into(), 1, "stopped".into()));
    assert_eq!(permanent_hand.say(1).await, Ok(1));
    assert_eq!(running.child("transient").await.status, ChildStatus::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_tried_again() {
    let (child, hand) = worker("a", &log());
    hand.failing_starts.store(2, Ordering::SeqCst);
    let mut running = Running::spawn(Plan::new(Limits::default()).child(child)).await;
    assert_eq!(running.child("a").await.status, ChildStatus::BackingOff);
    assert_eq!(hand.say(1).await, Ok(1));
    assert_eq!(running.restarted().await, ("a".into(), 2, "start failed: not yet".into()));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_panics_hangs_or_leaves_an_actor_behind_is_a_failure() {
    let (child, hand) = worker("a", &log());
    let (tries, inner) = (AtomicU32::new(0), Arc::clone(&child.start));
    let child = Child::new("a", move |supervisor| {
        let (number, inner) = (tries.fetch_add(1, Ordering::SeqCst), Arc::clone(&inner));
        async move {
            match number {
                0 => panic!("start panics"),
                1 => std::future::pending().await,
                2 => {
                    inner(supervisor).await?;
                    Err(SpawnErr::StartupFailed("after the spawn".into()))
                }
                _ => inner(supervisor).await,
            }
        }
    });
    let mut running = Running::spawn(Plan::new(Limits::default()).child(child)).await;
    let (_, attempt, failure) = running.restarted().await;
    assert_eq!((attempt, failure.as_str()), (3, "start failed: after the spawn"));
    assert_eq!(hand.say(1).await, Ok(1));
    assert_eq!(running.actor.get_children().len(), 1, "the actor left behind is dead");
}

#[tokio::test(start_paused = true)]
async fn progress_starts_afresh() {
    let (child, hand) = worker("a", &log());
    let progress = Progress::default();
    let mut running = Running::spawn(Plan::new(Limits::default()).child(child.progress(progress.clone()))).await;
    let mut attempts = Vec::new();
    for advances in [false, false, false, true, false] {
        if advances {
            progress.advance();
        }
        hand.panic().await;
        attempts.push(running.restarted().await.1);
    }
    assert_eq!(attempts, [1, 2, 3, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn calm_starts_afresh() {
    let (child, hand) = worker("a", &log());
    let mut running = Running::spawn(Plan::new(Limits { restarts: 1, ..Limits::default() }).child(child)).await;
    for _ in 0..4 {
        hand.panic().await;
        assert_eq!(running.restarted().await.1, 1);
        tokio::time::advance(Limits::default().within).await;
    }
}

#[test]
fn back_off_doubles_up_to_its_ceiling() {
    let millis = |failures, jitter| back_off(&Limits::default(), failures, jitter).as_millis();
    assert_eq!([1, 2, 3, 4].map(|failures| millis(failures, u32::MAX)), [100, 200, 400, 800]);
    assert_eq!([7, 40, usize::MAX].map(|failures| millis(failures, u32::MAX)), [5_000; 3]);
    assert_eq!([1, 7, usize::MAX].map(|failures| millis(failures, 0)), [50; 3]);
    let upside_down = Limits { back_off_max: Duration::ZERO, ..Limits::default() };
    assert_eq!(back_off(&upside_down, 3, u32::MAX), upside_down.back_off_min);
}

#[tokio::test(start_paused = true)]
async fn a_meltdown_escalates_and_the_neighbours_stop_in_order() {
    let log = log();
    let (neighbour, _neighbour_hand) = worker("neighbour", &log);
    let (child, hand) = worker("a", &log);
    let limits = Limits { restarts: 1, ..Limits::default() };
    let nested = Plan::new(limits.clone()).child(neighbour).child(child);
    let nested = Child::new("nested", move |supervisor| {
        let plan = nested.clone();
        async move { Ok(spawn_supervisor(plan, Some(supervisor)).await?.0.get_cell()) }
    });
    let mut running = Running::spawn(Plan::new(limits).child(nested)).await;
    hand.panic().await;
    hand.panic().await;
    let (name, _, failure) = running.restarted().await;
    assert_eq!(name, "nested");
    assert_eq!(failure, "meltdown: a failed 2 times within 60s, last with: panic on request");
    assert_eq!(hand.say(1).await, Ok(1), "the nested supervisor runs again");
    let expected = ["start neighbour", "start a", "start a", "stop neighbour", "start neighbour", "start a"];
    assert_eq!(entries(&log), expected);

    hand.panic().await;
    hand.panic().await;
    running.handle.await.unwrap();
    assert_eq!(hand.say(1).await, Err(AskError::Stopped), "the root is gone");
    assert_eq!(running.address.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn quarantine_spares_the_neighbours_and_ends_by_release() {
    let log = log();
    let (neighbour, neighbour_hand) = worker("neighbour", &log);
    let (child, hand) = worker("a", &log);
    let plan = Plan::new(Limits { restarts: 1, ..Limits::default() });
    let mut running = Running::spawn(plan.child(neighbour).child(child.on_meltdown(OnMeltdown::Quarantine))).await;
    hand.panic().await;
    assert_eq!(running.restarted().await.1, 1);
    hand.panic().await;
    let expected = SupervisionNote::Quarantined { name: "a".into(), failure: "panic on request".into() };
    assert_eq!(running.notes.recv().await, Some(expected));
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(running.child("a").await.status, ChildStatus::Quarantined);
    assert_eq!(neighbour_hand.say(1).await, Ok(1));

    let release = |name: &str| {
        let name = name.to_owned();
        |reply| SupervisorMessage::Release(name, reply)
    };
    assert_eq!(running.order(release("nobody")).await, Err(SupervisionError::UnknownName));
    assert_eq!(running.order(release("neighbour")).await, Err(SupervisionError::NotQuarantined));
    assert_eq!(running.order(release("a")).await, Ok(()));
    assert_eq!(hand.say(2).await, Ok(2));
    let state = running.child("a").await;
    assert_eq!((state.status, state.recent_failures), (ChildStatus::Running, 0));
    assert_eq!(entries(&log), ["start neighbour", "start a", "start a", "start a"]);
}

#[tokio::test(start_paused = true)]
async fn stopping_goes_in_reverse_and_kills_who_hangs() {
    let log = log();
    let (first, _first_hand) = worker("first", &log);
    let (hanging, hanging_hand) = worker("hanging", &log);
    let (last, last_hand) = worker("last", &log);
    let limit = Duration::from_millis(200);
    let plan = Plan::new(Limits::default()).child(first).child(hanging.stop_within(limit)).child(last);
    let running = Running::spawn(plan).await;
    let hung = hanging_hand.address.tell(WorkerMessage::Hang).unwrap();
    let queued = last_hand.address.tell(|reply| WorkerMessage::Say(1, reply)).unwrap();
    let began = Instant::now();
    running.actor.stop(None);
    running.handle.await.unwrap();
    assert_eq!(queued.await, Ok(1), "what was queued is handled");
    assert!(hung.await.is_err());
    assert!(began.elapsed() >= limit && began.elapsed() < limit * 2, "on the paused clock");
    assert_eq!(entries(&log), ["start first", "start hanging", "start last", "stop last", "stop first"]);
    assert_eq!(last_hand.say(1).await, Err(AskError::Stopped));
}

#[tokio::test(start_paused = true)]
async fn children_come_and_go_at_run_time() {
    let log = log();
    let (child, hand) = worker("a", &log);
    let mut running = Running::spawn(Plan::new(Limits::default())).await;
    let again = child.clone();
    assert_eq!(running.order(|reply| SupervisorMessage::Add(child, reply)).await, Ok(()));
    assert_eq!(hand.say(1).await, Ok(1));
    let taken = running.order(|reply| SupervisorMessage::Add(again, reply)).await;
    assert_eq!(taken, Err(SupervisionError::NameTaken));
    hand.panic().await;
    assert_eq!(running.restarted().await.0, "a");

    let unknown = running.order(|reply| SupervisorMessage::Remove("b".into(), reply)).await;
    assert_eq!(unknown, Err(SupervisionError::UnknownName));
    assert_eq!(running.order(|reply| SupervisorMessage::Remove("a".into(), reply)).await, Ok(()));
    assert_eq!(entries(&log), ["start a", "start a", "stop a"]);
    let state = running.address.ask(None, SupervisorMessage::Observe).await.unwrap();
    assert!(state.children.is_empty());
    assert_eq!(hand.say(1).await, Err(AskError::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_stays_responsive_while_it_removes_and_backs_off() {
    let log = log();
    let (hanging, hanging_hand) = worker("hanging", &log);
    let (failing, failing_hand) = worker("failing", &log);
    let running = Running::spawn(Plan::new(Limits::default()).child(hanging).child(failing)).await;
    let _hung = hanging_hand.address.tell(WorkerMessage::Hang).unwrap();
    let removed = running.address.tell(|reply| SupervisorMessage::Remove("hanging".into(), reply)).unwrap();
    assert_eq!(running.child("hanging").await.status, ChildStatus::Stopping);
    let twice = running.order(|reply| SupervisorMessage::Remove("hanging".into(), reply)).await;
    assert_eq!(twice, Err(SupervisionError::UnknownName));

    failing_hand.panic().await;
    while running.child("failing").await.status == ChildStatus::Running {}
    assert_eq!(running.child("failing").await.status, ChildStatus::BackingOff);
    assert_eq!(running.order(|reply| SupervisorMessage::Remove("failing".into(), reply)).await, Ok(()));
    assert_eq!(removed.await, Ok(Ok(())));
    tokio::time::advance(Duration::from_secs(60)).await;
    let state = running.address.ask(None, SupervisorMessage::Observe).await.unwrap();
    assert!(state.children.is_empty(), "the timer of a removed child is void");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_fails_while_its_supervisor_drains_does_not_fail_it() {
    let log = log();
    let (first, _first_hand) = worker("first", &log);
    let (child, hand) = worker("a", &log);
    let plan = Plan::new(Limits { restarts: 0, ..Limits::default() }).child(first).child(child);
    let running = Running::spawn(plan).await;
    assert_eq!(hand.say(1).await, Ok(1));
    let crashed = hand.address.tell(WorkerMessage::Panic).unwrap();
    running.actor.drain().unwrap();
    running.handle.await.unwrap();
    assert!(crashed.await.is_err());
    assert_eq!(entries(&log), ["start first", "start a", "stop first"]);
}

proptest::proptest! {
    #[test]
    fn a_back_off_lies_between_the_shortest_and_the_doubling_and_grows_with_its_share(failures in 1_usize..100, share: u32) {
        let limits = Limits::default();
        let (least, most) = (back_off(&limits, failures, 0), back_off(&limits, failures, u32::MAX));
        let pause = back_off(&limits, failures, share);
        proptest::prop_assert!((least..=most).contains(&pause));
        proptest::prop_assert!(least == limits.back_off_min && most <= limits.back_off_max);
        proptest::prop_assert!(back_off(&limits, failures + 1, share) >= pause);
    }
}

#[tokio::test(start_paused = true)]
async fn the_board_shows_the_children_unasked_and_counts_on_over_a_restart_of_their_supervisor() {
    let (child, hand) = worker("a", &log());
    let (board, clock) = (Board::default(), Clock::manual(majordomo_model::Timestamp::from_micros(7)));
    let plan = Plan::new(Limits::default()).child(child).board(board.clone()).clock(clock.clone());
    let mut running = Running::spawn(plan.clone()).await;
    assert_eq!(running.child("a").await.status, ChildStatus::Running);
    clock.advance(Duration::from_micros(3));
    hand.panic().await;
    running.restarted().await;
    running.child("a").await;
    let shown = || board.state().children.first().cloned().unwrap();
    let last = shown().last_failure.unwrap();
    assert_eq!((last.at.as_micros(), last.failure.as_str(), shown().restarts), (10, "panic on request", 1));
    assert!(board.gauge().reading().handled >= 3);
    running.actor.kill_and_wait(None).await.unwrap();
    assert_eq!(shown().status, ChildStatus::Running, "the last that it had shown");

    let again = Running::spawn(plan).await;
    assert_eq!(again.child("a").await.restarts, 1);
    again.actor.stop(None);
    again.handle.await.unwrap();
    assert_eq!(shown().status, ChildStatus::Stopped);
}

#[tokio::test(start_paused = true)]
async fn the_state_is_plain_json() {
    let (child, hand) = worker("a", &log());
    let clock = Clock::manual(majordomo_model::Timestamp::from_micros(1_800_000_000_000_000));
    let mut running = Running::spawn(Plan::new(Limits::default()).child(child).clock(clock)).await;
    hand.panic().await;
    running.restarted().await;
    let state = running.address.ask(None, SupervisorMessage::Observe).await.unwrap();
    let failure = r#"{"at":1800000000000000,"failure":"panic on request"}"#;
    let child = format!(r#""name":"a","status":"running","restarts":1,"recent_failures":1,"last_failure":{failure}"#);
    assert_eq!(serde_json::to_string(&state).unwrap(), format!(r#"{{"children":[{{{child}}}]}}"#));
}
