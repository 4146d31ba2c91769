//! The guests: who is attached while logins are measured, and what they do there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use majordomo::ractor::{self, Actor as _, ActorProcessingErr, ActorRef};
use majordomo::{
    Accounts, Actor, Effect, Envelope, Filter, Live, Outcome, RetryPolicy, Signal, Start, Subscriber,
    SubscriberContext, Subscription,
};

use crate::Failure;

/// How many signals are emitted for one; the most there may be.
pub(crate) const FLOOD: usize = 16;
/// How much memory is taken for one signal, in bytes.
const MEMORY: usize = 64 << 20;

/// What a subscriber does with every signal, as long as it is its turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Deed {
    Nothing,
    Panic,
    Block,
    Hang,
    Spin,
    Flood,
    Allocate,
}

pub(crate) const HOSTILE: [Deed; 6] = [Deed::Panic, Deed::Block, Deed::Hang, Deed::Spin, Deed::Flood, Deed::Allocate];

#[derive(Clone)]
pub(crate) struct Puppet {
    deed: Deed,
    turn: Arc<AtomicBool>,
    handled: Arc<AtomicU64>,
}

impl Puppet {
    pub(crate) fn new(deed: Deed) -> Self {
        Self { deed, turn: Arc::new(AtomicBool::new(true)), handled: Arc::default() }
    }

    fn is_on(&self) -> bool {
        self.turn.load(Ordering::Relaxed)
    }

    /// On terms that make the most of what it does.
    pub(crate) fn subscription(&self, name: impl Into<String>) -> Subscription {
        let millisecond = Duration::from_millis(1);
        let retry = RetryPolicy { attempts: None, first: millisecond, cap: millisecond, ..RetryPolicy::default() };
        let subscription = Subscription::new(name, self.clone()).retry(retry);
        match self.deed {
            Deed::Block | Deed::Hang => subscription.deadline(Duration::from_millis(200)),
            _ => subscription,
        }
    }
}

impl Subscriber for Puppet {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        self.handled.fetch_add(1, Ordering::Relaxed);
        if !self.is_on() {
            return Outcome::done();
        }
        match self.deed {
            Deed::Nothing => {}
            Deed::Panic => panic!("on purpose"),
            Deed::Block => {
                while self.is_on() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Deed::Hang => std::future::pending().await,
            Deed::Spin => {
                while self.is_on() {
                    std::hint::spin_loop();
                }
            }
            Deed::Flood => return Outcome::Done(flood(envelope)),
            Deed::Allocate => drop(std::hint::black_box(vec![1_u8; MEMORY])),
        }
        Outcome::done()
    }
}

fn flood(envelope: &Envelope) -> Vec<Effect> {
    let Some(user) = envelope.signal.user() else { return Vec::new() };
    let emitted = || Signal::UserPasswordChecked { user, success: true, needs_rehash: false };
    (0..FLOOD).map(|_| Effect::Emit(Box::new(emitted()))).collect()
}

/// A live member, which hears everything and keeps nothing.
struct Ear;

struct Heard(#[expect(dead_code, reason = "it is heard, and that is all")] Live);

impl From<Live> for Heard {
    fn from(live: Live) -> Self {
        Self(live)
    }
}

#[ractor::actor(message = Heard, state = (), arguments = ())]
impl Ear {
    async fn pre_start(&self, _myself: ActorRef<Heard>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _myself: ActorRef<Heard>, _heard: Heard, _state: &mut ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// Who is attached while logins are measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arm {
    Nobody,
    NobodyAgain,
    Good,
    Hostile,
    One(Deed),
    CatchingUp,
}

impl Arm {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Nobody => "none".to_owned(),
            Self::NobodyAgain => "none, again".to_owned(),
            Self::Good => "8 durable, 1 live".to_owned(),
            Self::Hostile => "6 hostile".to_owned(),
            Self::One(deed) => format!("{deed:?}").to_lowercase(),
            Self::CatchingUp => "catching up".to_owned(),
        }
    }

    fn puppets(self) -> Vec<Puppet> {
        match self {
            Self::Nobody | Self::NobodyAgain => Vec::new(),
            Self::Good => (0..8).map(|_| Puppet::new(Deed::Nothing)).collect(),
            Self::Hostile => HOSTILE.map(Puppet::new).into(),
            Self::One(deed) => vec![Puppet::new(deed)],
            Self::CatchingUp => vec![Puppet::new(Deed::Nothing)],
        }
    }

    pub(crate) async fn attach(self, accounts: &Accounts) -> Result<Guests, Failure> {
        let puppets = self.puppets();
        for (number, puppet) in puppets.iter().enumerate() {
            let start = if self == Self::CatchingUp { Start::Beginning } else { Start::Now };
            accounts.add(puppet.subscription(guest_name(number)).start(start)).await?;
        }
        let mut guests = Guests { puppets, ear: None, again: None };
        if self == Self::Good {
            let (ear, _) = Ear::spawn(None, Ear, ()).await?;
            accounts.listen(&ear, Filter::all(), 1_000);
            guests.ear = Some(ear);
        }
        if self == Self::CatchingUp {
            // Whoever has caught up before the turn is over begins anew.
            let accounts = accounts.clone();
            guests.again = Some(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let lag = accounts.tree().await.subscription(&guest_name(0)).map(|state| state.lag);
                    if lag.is_some_and(|lag| lag < 100) {
                        let _ = accounts.move_subscription(&guest_name(0), Start::Beginning, Actor::System).await;
                    }
                }
            }));
        }
        Ok(guests)
    }
}

fn guest_name(number: usize) -> String {
    format!("isolation-{number}")
}

/// Who is attached.
pub(crate) struct Guests {
    puppets: Vec<Puppet>,
    ear: Option<ActorRef<Heard>>,
    again: Option<tokio::task::JoinHandle<()>>,
}

impl Guests {
    pub(crate) fn handled(&self) -> u64 {
        self.puppets.iter().map(|puppet| puppet.handled.load(Ordering::Relaxed)).sum()
    }

    /// Lets go of them, and waits until nothing of what they did is left to be done.
    pub(crate) async fn detach(self, accounts: &Accounts) -> Result<(), Failure> {
        if let Some(again) = self.again {
            again.abort();
            let _ = again.await;
        }
        self.puppets.iter().for_each(|puppet| puppet.turn.store(false, Ordering::Relaxed));
        if let Some(ear) = self.ear {
            accounts.unlisten(&ear);
            ear.stop(None);
        }
        for number in 0..self.puppets.len() {
            accounts.detach(&guest_name(number)).await?;
            accounts.forget_subscription(&guest_name(number)).await?;
        }
        accounts.drain().await;
        Ok(())
    }
}
