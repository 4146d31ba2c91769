//! The actor that answers for the hash threads: it starts them, ends them, and is what a supervisor restarts.

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr};
use tokio::runtime::Handle;

use super::crew::Crew;
use super::{Hasher, HasherState};

/// What the hasher's actor may be asked. Hashes do not pass through it: they wait in the queue of [`Hasher`].
#[derive(Debug)]
pub enum HasherMessage {
    /// Asks for the present state.
    Observe(RpcReplyPort<HasherState>),
}

/// Starts an incarnation of the actor, linked to `supervisor` if there is one. See [`Hasher::start`].
pub(super) async fn start(hasher: Hasher, supervisor: Option<ActorCell>) -> Result<ActorRef<HasherMessage>, SpawnErr> {
    let (actor, _task) = match supervisor {
        Some(supervisor) => HasherActor::spawn_linked(None, HasherActor, hasher, supervisor).await?,
        None => HasherActor::spawn(None, HasherActor, hasher).await?,
    };
    Ok(actor)
}

struct HasherActor;

/// An incarnation's state; where it is lost to a panic or a kill, dropping the crew ends the threads.
struct Incarnation {
    hasher: Hasher,
    crew: Crew,
}

#[ractor::actor(message = HasherMessage, state = Incarnation, arguments = Hasher)]
impl HasherActor {
    async fn pre_start(
        &self,
        _myself: ActorRef<HasherMessage>,
        hasher: Hasher,
    ) -> Result<Incarnation, ActorProcessingErr> {
        let crew = Crew::muster(&hasher.shared, &Handle::current())?;
        hasher.shared.queue.open();
        Ok(Incarnation { hasher, crew })
    }

    #[ractor::rpc(HasherMessage::Observe(reply))]
    fn observe(&self, state: &Incarnation) -> HasherState {
        state.hasher.observe()
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<HasherMessage>,
        state: &mut Incarnation,
    ) -> Result<(), ActorProcessingErr> {
        state.hasher.close();
        let threads = state.crew.dismiss();
        let join = move || threads.into_iter().for_each(|thread| drop(thread.join()));
        tokio::task::spawn_blocking(join).await?;
        Ok(())
    }
}
