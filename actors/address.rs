//! A stable, bounded address of an actor that may be restarted.
//!
//! An actor's mailbox has no bound, and a restarted actor is a new one with an empty mailbox. An [`Address`] adds both:
//! a fixed number of places, and the knowledge of the current incarnation. The place travels inside the [`Reply`], so
//! it is freed by the answer, by dropping the question and by a crash alike, and never by the caller going away: what
//! a caller left in the mailbox still weighs there.

use std::fmt;
use std::sync::Arc;

use ractor::{ActorCell, ActorId, ActorRef, Message, MessagingErr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tracing::Span;

/// How often [`Address::ask_repeatable`] asks at most.
///
/// One crash can cost a caller two tries: the question inside the handler, and a repeat that the dying mailbox took.
/// So eight outlive three crashes in a row.
pub const TRIES: usize = 8;

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Every place is taken; nothing was sent.
    #[error("every place in the queue is taken")]
    Overloaded,
    /// The question died inside the actor, which may or may not have carried it out.
    #[error("the actor ended before it answered")]
    Interrupted,
    /// The deadline passed. If the question had been delivered, the actor may still carry it out.
    #[error("no answer before the deadline")]
    DeadlineExceeded,
    /// The actor has stopped for good; the question was not delivered.
    #[error("the system has stopped")]
    Stopped,
}

impl AskError {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Interrupted => "interrupted",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the same question may succeed later. Whether repeating it is *safe* is for the caller to know.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        !matches!(self, Self::Stopped)
    }
}

/// Where an answer goes, and the asker's place in the queue.
///
/// Dropping it unanswered tells the asker [`AskError::Interrupted`].
pub struct Reply<R> {
    // Fields are dropped in this order: the place is free before the asker hears of it.
    _place: OwnedSemaphorePermit,
    port: oneshot::Sender<R>,
    deadline: Option<Instant>,
    told: bool,
    span: Span,
}

impl<R> Reply<R> {
    fn new(place: OwnedSemaphorePermit, deadline: Option<Instant>, told: bool) -> (Self, oneshot::Receiver<R>) {
        let (port, answer) = oneshot::channel();
        (Self { _place: place, port, deadline, told, span: Span::current() }, answer)
    }

    /// Frees the place and answers. An answer that nobody waits for is dropped.
    pub fn send(self, answer: R) {
        let Self { _place: place, port, .. } = self;
        drop(place);
        let _ = port.send(answer);
    }

    /// Whether nobody waits for the answer any more, so that the work may be skipped: the asker is gone or its
    /// deadline has passed. What was told ([`Address::tell`]) is never stale.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        !self.told && (self.port.is_closed() || self.deadline.is_some_and(|deadline| deadline <= Instant::now()))
    }

    /// The instant until which the asker waits, if it set one.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The `tracing` span in which it was asked, so that the work can be shown as a part of it. An actor's handler runs
    /// in no span of the asker's.
    #[must_use]
    pub const fn span(&self) -> &Span {
        &self.span
    }
}

impl<R> fmt::Debug for Reply<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reply").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Who answers at an address now.
enum Binding<M> {
    Unbound,
    Bound(ActorRef<M>),
    Closed,
}

impl<M> Binding<M> {
    fn is_bound_to(&self, id: ActorId) -> bool {
        matches!(self, Self::Bound(actor) if actor.get_id() == id)
    }
}

/// The supervising side of an [`Address`]: says which actor answers there. Cloning shares it.
///
/// When the last clone is gone and no actor is bound, the address is closed.
pub struct Binder<M> {
    current: watch::Sender<Binding<M>>,
}

impl<M: Message> Binder<M> {
    /// Makes `actor` the current incarnation until it ends or another one is bound, and gives back its cell, which is
    /// what a start function returns. A closed address stays closed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(&self, actor: ActorRef<M>) -> ActorCell {
        let cell = actor.get_cell();
        let bound = self.current.send_if_modified(|current| {
            let open = !matches!(current, Binding::Closed);
            if open {
                *current = Binding::Bound(actor);
            }
            open
        });
        if bound {
            tokio::spawn(unbind_at_end(self.current.clone(), cell.clone()));
        }
        cell
    }

    /// Closes the address for good: whatever has not been delivered is answered [`AskError::Stopped`].
    pub fn close(&self) {
        self.current.send_replace(Binding::Closed);
    }
}

/// Lets go of an ended actor: its mailbox lives as long as a reference to it, and with it a question that slipped in
/// at the last moment.
async fn unbind_at_end<M: Message>(current: watch::Sender<Binding<M>>, actor: ActorCell) {
    let _ = actor.wait(None).await;
    current.send_if_modified(|binding| {
        let ended = binding.is_bound_to(actor.get_id());
        if ended {
            *binding = Binding::Unbound;
        }
        ended
    });
}

impl<M> Clone for Binder<M> {
    fn clone(&self) -> Self {
        Self { current: self.current.clone() }
    }
}

impl<M> fmt::Debug for Binder<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Binder").finish_non_exhaustive()
    }
}

/// A stable, bounded address of an actor that may be restarted. Cloning shares the places.
///
/// Questions of one caller arrive in order, except across a restart. While no incarnation is bound they wait, each in
/// its place; a question without a deadline may wait as long as the system lives.
pub struct Address<M> {
    current: watch::Receiver<Binding<M>>,
    free: Arc<Semaphore>,
    places: usize,
}

impl<M: Message> Address<M> {
    /// An address where at most `places` questions wait or are being handled, and the binder that says who answers.
    #[must_use]
    pub fn new(places: usize) -> (Self, Binder<M>) {
        let places = places.min(Semaphore::MAX_PERMITS);
        let (sender, receiver) = watch::channel(Binding::Unbound);
        (Self { current: receiver, free: Arc::new(Semaphore::new(places)), places }, Binder { current: sender })
    }

    /// Asks and waits for the answer, at most until `deadline`.
    ///
    /// A question that the current incarnation no longer takes goes to the next one.
    ///
    /// # Errors
    /// Any [`AskError`]; after [`AskError::Interrupted`] and [`AskError::DeadlineExceeded`] the work may have been done.
    pub async fn ask<R, B>(&self, deadline: Option<Instant>, build: B) -> Result<R, AskError>
    where
        B: FnOnce(Reply<R>) -> M,
    {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(AskError::DeadlineExceeded);
        }
        let (reply, answer) = Reply::new(self.take_place()?, deadline, false);
        let message = build(reply);
        let answered = async {
            self.deliver(message).await?;
            answer.await.map_err(|_| AskError::Interrupted)
        };
        match deadline {
            Some(deadline) => {
                tokio::time::timeout_at(deadline, answered).await.unwrap_or(Err(AskError::DeadlineExceeded))
            }
            None => answered.await,
        }
    }

    /// As [`Address::ask`], but asks again after [`AskError::Interrupted`], at most [`TRIES`] times in all.
    ///
    /// Only for questions that do no harm when carried out twice, such as those with a request id.
    ///
    /// # Errors
    /// As [`Address::ask`], save that [`AskError::Overloaded`] still means that nothing was sent: a repeat that finds
    /// no place answers [`AskError::Interrupted`]. After [`AskError::Stopped`] an earlier try may have been carried out.
    pub async fn ask_repeatable<R, B>(&self, deadline: Option<Instant>, mut build: B) -> Result<R, AskError>
    where
        B: FnMut(Reply<R>) -> M,
    {
        let mut outcome = self.ask(deadline, &mut build).await;
        for _ in 1..TRIES {
            if !matches!(outcome, Err(AskError::Interrupted)) {
                break;
            }
            outcome = match self.ask(deadline, &mut build).await {
                Err(AskError::Overloaded) => return Err(AskError::Interrupted),
                outcome => outcome,
            };
        }
        outcome
    }

    /// Sends without waiting, for callers that are actors themselves. The receiver yields the answer, or an error if
    /// the message died with the actor or the system stopped; it may be dropped, and the message is handled all the
    /// same and keeps its place until then.
    ///
    /// While no incarnation is bound, the message waits for the next one.
    ///
    /// # Errors
    /// [`AskError::Overloaded`] or [`AskError::Stopped`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn tell<R, B>(&self, build: B) -> Result<oneshot::Receiver<R>, AskError>
    where
        B: FnOnce(Reply<R>) -> M,
    {
        let (reply, answer) = Reply::new(self.take_place()?, None, true);
        if let Err(undelivered) = self.try_deliver(build(reply)) {
            let address = self.clone();
            // At most one such task a place. If the system stops, dropping the message tells the receiver.
            tokio::spawn(async move { address.deliver(undelivered).await });
        }
        Ok(answer)
    }

    /// How many questions may wait or be handled at once.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.places
    }

    /// How many places are taken now.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.places.saturating_sub(self.free.available_permits())
    }

    /// Whether the address has been closed for good.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.current.borrow(), Binding::Closed)
    }

    fn take_place(&self) -> Result<OwnedSemaphorePermit, AskError> {
        if self.is_closed() {
            return Err(AskError::Stopped);
        }
        Arc::clone(&self.free).try_acquire_owned().map_err(|_| AskError::Overloaded)
    }

    /// Sends to the current incarnation, or gives the message back.
    fn try_deliver(&self, message: M) -> Result<(), M> {
        let actor = match &*self.current.borrow() {
            Binding::Bound(actor) => actor.clone(),
            Binding::Unbound | Binding::Closed => return Err(message),
        };
        send(&actor, message)
    }

    /// Sends to the current incarnation or, as long as each refuses, to the next.
    async fn deliver(&self, mut message: M) -> Result<(), AskError> {
        let mut current = self.current.clone();
        let mut refused_by: Option<ActorId> = None;
        loop {
            let actor = next_incarnation(&mut current, refused_by).await?;
            match send(&actor, message) {
                Ok(()) => return Ok(()),
                Err(undelivered) => message = undelivered,
            }
            refused_by = Some(actor.get_id());
        }
    }
}

fn send<M: Message>(actor: &ActorRef<M>, message: M) -> Result<(), M> {
    match actor.send_message(message) {
        Err(MessagingErr::SendErr(undelivered)) => Err(undelivered),
        // On any other error the message is gone, and its dropped reply tells the asker.
        _ => Ok(()),
    }
}

/// Waits for an incarnation other than the one that refused.
async fn next_incarnation<M>(
    current: &mut watch::Receiver<Binding<M>>,
    refused_by: Option<ActorId>,
) -> Result<ActorRef<M>, AskError> {
    let binding = current
        .wait_for(|binding| match binding {
            Binding::Unbound => false,
            Binding::Bound(actor) => refused_by != Some(actor.get_id()),
            Binding::Closed => true,
        })
        .await;
    match binding.as_deref() {
        Ok(Binding::Bound(actor)) => Ok(actor.clone()),
        _ => Err(AskError::Stopped),
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { current: self.current.clone(), free: Arc::clone(&self.free), places: self.places }
    }
}

impl<M: Message> fmt::Debug for Address<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Address")
            .field("places", &self.places)
            .field("taken", &self.taken())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use ractor::{Actor, ActorProcessingErr};

    use super::*;

    enum EchoMessage {
        Say(u32, Reply<u32>),
        /// Keeps the reply until `LetGo`.
        Hold(Reply<u32>),
        LetGo(Reply<usize>),
        Drop(Reply<u32>),
        Crash(Reply<u32>),
        /// Crashes while the counter is above zero, then answers.
        CrashWhile(Arc<AtomicU32>, Reply<u32>),
        /// Keeps the handler busy until the semaphore has a permit.
        Busy(Arc<Semaphore>, Reply<u32>),
        /// Counts itself unless nobody waits for it.
        CountUnlessStale(Arc<AtomicU32>, Reply<u32>),
    }

    struct Echo;

    #[ractor::actor(message = EchoMessage, state = Vec<Reply<u32>>)]
    impl Echo {
        async fn pre_start(
            &self,
            _myself: ActorRef<EchoMessage>,
            _arguments: (),
        ) -> Result<Vec<Reply<u32>>, ActorProcessingErr> {
            Ok(Vec::new())
        }

        async fn handle(
            &self,
            _myself: ActorRef<EchoMessage>,
            message: EchoMessage,
            held: &mut Vec<Reply<u32>>,
        ) -> Result<(), ActorProcessingErr> {
            match message {
                EchoMessage::Say(number, reply) => reply.send(number),
                EchoMessage::Hold(reply) => held.push(reply),
                EchoMessage::LetGo(reply) => reply.send(held.drain(..).count()),
                EchoMessage::Drop(reply) => drop(reply),
                EchoMessage::Crash(_reply) => panic!("crash on request"),
                EchoMessage::CrashWhile(fuse, reply) => {
                    let left = fuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                    assert!(left.is_err(), "crash on request");
                    reply.send(fuse.load(Ordering::SeqCst));
                }
                EchoMessage::Busy(gate, reply) => {
                    let _permit = gate.acquire().await?;
                    reply.send(0);
                }
                EchoMessage::CountUnlessStale(counter, reply) => {
                    if !reply.is_stale() {
                        reply.send(counter.fetch_add(1, Ordering::SeqCst));
                    }
                }
            }
            Ok(())
        }
    }

    async fn incarnation() -> ActorRef<EchoMessage> {
        Actor::spawn(None, Echo, ()).await.unwrap().0
    }

    async fn bound(places: usize) -> (Address<EchoMessage>, Binder<EchoMessage>, ActorRef<EchoMessage>) {
        let (address, binder) = Address::new(places);
        let actor = incarnation().await;
        binder.bind(actor.clone());
        (address, binder, actor)
    }

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs(5))
    }

    #[tokio::test]
    async fn an_answer_frees_the_place_before_it_arrives() {
        let (address, _binder, _actor) = bound(1).await;
        for number in 0..100 {
            assert_eq!(address.ask(None, |reply| EchoMessage::Say(number, reply)).await, Ok(number));
            assert_eq!(address.taken(), 0);
        }
    }

    #[tokio::test]
    async fn a_dropped_reply_frees_the_place_and_interrupts() {
        let (address, _binder, _actor) = bound(1).await;
        assert_eq!(address.ask(None, EchoMessage::Drop).await, Err(AskError::Interrupted));
        assert_eq!(address.taken(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_crash_frees_every_place_handled_or_queued() {
        let (address, _binder, actor) = bound(4).await;
        let held = address.tell(EchoMessage::Hold).unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let busy = address.tell(|reply| EchoMessage::Busy(Arc::clone(&gate), reply)).unwrap();
        let crash = address.tell(EchoMessage::Crash).unwrap();
        let queued = address.tell(|reply| EchoMessage::Say(1, reply)).unwrap();
        assert_eq!(address.taken(), 4);
        gate.add_permits(1);
        assert_eq!(busy.await, Ok(0));
        assert!(crash.await.is_err());
        assert!(queued.await.is_err());
        assert!(held.await.is_err());
        actor.wait(None).await.unwrap();
        assert_eq!(address.taken(), 0);
    }

    #[tokio::test]
    async fn overloaded_exactly_at_the_bound() {
        let (address, _binder, _actor) = bound(3).await;
        assert_eq!((address.places(), address.taken()), (3, 0));
        let _held: Vec<_> = (0..3).map(|_| address.tell(EchoMessage::Hold).unwrap()).collect();
        assert_eq!(address.taken(), 3);
        assert_eq!(address.ask(None, |reply| EchoMessage::Say(1, reply)).await, Err(AskError::Overloaded));
        assert_eq!(address.tell(EchoMessage::Hold).err(), Some(AskError::Overloaded));
        assert_eq!(address.taken(), 3);
    }

    #[tokio::test]
    async fn an_undelivered_question_reaches_the_next_incarnation() {
        let (address, binder, first) = bound(4).await;
        first.kill();
        first.wait(None).await.unwrap();
        let asked = tokio::spawn({
            let address = address.clone();
            async move { address.ask(None, |reply| EchoMessage::Say(7, reply)).await }
        });
        let told = address.tell(|reply| EchoMessage::Say(8, reply)).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(address.taken(), 2);
        // Binding the dead one again must neither be taken for a new one nor make the waiters spin.
        binder.bind(first);
        tokio::task::yield_now().await;
        assert!(!asked.is_finished());
        binder.bind(incarnation().await);
        assert_eq!(asked.await.unwrap(), Ok(7));
        assert_eq!(told.await, Ok(8));
        assert_eq!(address.taken(), 0);
    }

    #[tokio::test]
    async fn a_draining_actor_refuses_and_the_next_one_answers() {
        let (address, binder, first) = bound(4).await;
        first.drain().unwrap();
        let asked = address.ask(None, |reply| EchoMessage::Say(9, reply));
        let rebind = async { binder.bind(incarnation().await) };
        assert_eq!(tokio::join!(asked, rebind).0, Ok(9));
    }

    #[tokio::test]
    async fn a_question_that_died_inside_is_interrupted() {
        let (address, binder, _actor) = bound(4).await;
        assert_eq!(address.ask(None, EchoMessage::Crash).await, Err(AskError::Interrupted));
        binder.bind(incarnation().await);
        assert_eq!(address.ask(None, |reply| EchoMessage::Say(1, reply)).await, Ok(1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_repeatable_question_is_answered_across_three_crashes() {
        let (address, binder) = Address::new(4);
        let rebinding = tokio::spawn(async move {
            loop {
                let actor = incarnation().await;
                binder.bind(actor.clone());
                let _ = actor.wait(None).await;
            }
        });
        let fuse = Arc::new(AtomicU32::new(3));
        let build = |reply| EchoMessage::CrashWhile(Arc::clone(&fuse), reply);
        assert_eq!(address.ask_repeatable(None, build).await, Ok(0));
        assert_eq!(address.taken(), 0);
        rebinding.abort();
    }

    #[tokio::test]
    async fn a_question_is_not_repeated_for_ever() {
        let (address, _binder, _actor) = bound(1).await;
        let mut tries = 0;
        let build = |reply| {
            tries += 1;
            EchoMessage::Drop(reply)
        };
        assert_eq!(address.ask_repeatable(None, build).await, Err(AskError::Interrupted));
        assert_eq!(tries, TRIES);
    }

    #[tokio::test]
    async fn a_cancelled_caller_leaks_no_place() {
        let (address, _binder, _actor) = bound(3).await;
        let gate = Arc::new(Semaphore::new(0));
        let _busy = address.tell(|reply| EchoMessage::Busy(Arc::clone(&gate), reply)).unwrap();
        let counter = Arc::new(AtomicU32::new(0));
        let queued = tokio::spawn({
            let (address, counter) = (address.clone(), Arc::clone(&counter));
            async move { address.ask(None, |reply| EchoMessage::CountUnlessStale(counter, reply)).await }
        });
        tokio::task::yield_now().await;
        queued.abort();
        assert!(queued.await.unwrap_err().is_cancelled());
        assert_eq!(address.taken(), 2, "what lies in the mailbox keeps its place");
        gate.add_permits(1);
        assert_eq!(address.ask(None, |reply| EchoMessage::Say(1, reply)).await, Ok(1));
        assert_eq!(address.taken(), 0);
        assert_eq!(counter.load(Ordering::SeqCst), 0, "stale work is skipped");
    }

    #[tokio::test]
    async fn a_caller_cancelled_before_delivery_frees_its_place() {
        let (address, _binder) = Address::<EchoMessage>::new(1);
        let waiting = tokio::spawn({
            let address = address.clone();
            async move { address.ask(None, |reply| EchoMessage::Say(1, reply)).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(address.taken(), 1);
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(address.taken(), 0);
    }

    #[tokio::test]
    async fn what_is_told_is_handled_though_nobody_waits() {
        let (address, _binder, _actor) = bound(2).await;
        let counter = Arc::new(AtomicU32::new(0));
        drop(address.tell(|reply| EchoMessage::CountUnlessStale(Arc::clone(&counter), reply)).unwrap());
        assert_eq!(address.ask(None, |reply| EchoMessage::Say(1, reply)).await, Ok(1));
        assert_eq!(counter.load(Ordering::SeqCst), 1);
        assert_eq!(address.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_holds_delivered_or_not() {
        let (address, binder) = Address::new(2);
        let unbound = address.ask(soon(), |reply| EchoMessage::Say(1, reply)).await;
        assert_eq!(unbound, Err(AskError::DeadlineExceeded));
        assert_eq!(address.taken(), 0);

        binder.bind(incarnation().await);
        assert_eq!(address.ask(soon(), EchoMessage::Hold).await, Err(AskError::DeadlineExceeded));
        assert_eq!(address.taken(), 1);
        assert_eq!(address.ask(None, EchoMessage::LetGo).await, Ok(1));
        assert_eq!(address.taken(), 0);

        let passed = address.ask(Some(Instant::now()), |_: Reply<u32>| unreachable!("must not be built")).await;
        assert_eq!(passed, Err(AskError::DeadlineExceeded));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_is_stale_after_its_deadline() {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (reply, _answer) = Reply::<u32>::new(place, soon(), false);
        assert!(!reply.is_stale());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(reply.is_stale());
        assert!(reply.deadline().is_some());
    }

    #[tokio::test]
    async fn closing_answers_stopped_to_the_waiting_and_to_the_late() {
        let (address, binder) = Address::<EchoMessage>::new(2);
        let waiting = tokio::spawn({
            let address = address.clone();
            async move { address.ask(None, |reply| EchoMessage::Say(1, reply)).await }
        });
        let told = address.tell(|reply| EchoMessage::Say(2, reply)).unwrap();
        tokio::task::yield_now().await;
        binder.close();
        assert_eq!(waiting.await.unwrap(), Err(AskError::Stopped));
        assert!(told.await.is_err());
        binder.bind(incarnation().await);
        assert_eq!(address.ask_repeatable(None, |reply| EchoMessage::Say(1, reply)).await, Err(AskError::Stopped));
        assert_eq!(address.tell(|reply| EchoMessage::Say(1, reply)).err(), Some(AskError::Stopped));
        assert_eq!(address.taken(), 0);
    }

    #[tokio::test]
    async fn an_address_without_binder_or_actor_is_closed() {
        let (address, binder, actor) = bound(1).await;
        drop(binder);
        assert_eq!(address.ask(None, |reply| EchoMessage::Say(1, reply)).await, Ok(1));
        actor.kill();
        actor.wait(None).await.unwrap();
        assert_eq!(address.ask(None, |reply| EchoMessage::Say(1, reply)).await, Err(AskError::Stopped));
    }

    #[test]
    fn errors_have_stable_names() {
        let all = [AskError::Overloaded, AskError::Interrupted, AskError::DeadlineExceeded, AskError::Stopped];
        let names = all.map(AskError::as_str);
        assert_eq!(names, ["overloaded", "interrupted", "deadline_exceeded", "stopped"]);
        assert_eq!(all.map(AskError::is_transient), [true, true, true, false]);
    }
}
