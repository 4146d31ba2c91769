//! The load: workers that each run a seeded schedule of commands for users of their own, and repeat what was cut off.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use majordomo::{CommandId, FlowKind, SignalId, SignalKind, TokenId, UserId};

use crate::link::{Heard, Link, PATIENCE};
use crate::person::{Expected, Person};
use crate::wire::{Act, Answer, Ask, Entry, MESSAGES, Sent, Tail, WITNESS};

/// How many workers there are.
pub(crate) const WORKERS: usize = 8;
/// How many people a worker looks after at most.
const PEOPLE: usize = 6;
/// Names that several workers want.
const SHARED_NAMES: u64 = 4;

/// Numbers that a seed determines (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    /// The dice of a place in a run.
    pub(crate) fn new(place: impl IntoIterator<Item = u64>) -> Self {
        let mut dice = Self(0);
        for number in place {
            dice.0 ^= number;
            dice.0 = dice.next();
        }
        dice
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of the numbers below `bound`.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A command that was answered with what the flow came to.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) request: String,
    pub(crate) worker: usize,
    pub(crate) flow: FlowKind,
    pub(crate) success: SignalKind,
    pub(crate) done: bool,
    /// How often it was sent.
    pub(crate) sent: u32,
}

/// A command that is not answered yet.
struct Pending {
    id: CommandId,
    act: Act,
    /// Whom it is about, unless it is a registration or about somebody who was deleted.
    person: Option<usize>,
    expected: Expected,
    sent: u32,
}

/// Drives some users.
pub(crate) struct Worker {
    /// The seed of the run, the number of the life, the number of the worker.
    place: [u64; 3],
    drawn: u64,
    pub(crate) people: Vec<Person>,
    pub(crate) deleted: Vec<UserId>,
    pub(crate) answered: Vec<Answered>,
    pending: Option<Pending>,
}

/// Why a worker does not go on.
pub(crate) enum Pause {
    CutOff,
    /// It was asked to.
    Rest,
    Fault(String),
}

impl Worker {
    pub(crate) const fn new(place: [u64; 3]) -> Self {
        Self { place, drawn: 0, people: Vec::new(), deleted: Vec::new(), answered: Vec::new(), pending: None }
    }

    /// Runs the schedule until the child is gone, or a rest is asked for.
    pub(crate) fn run(&mut self, link: &Link, post: &PostOffice) -> Pause {
        loop {
            let step = self.resume(link).and_then(|()| {
                if link.rests() {
                    return Err(Pause::Rest);
                }
                self.pending = Some(self.draw(link, post)?);
                Ok(())
            });
            if let Err(pause) = step {
                // With one worker at a fault, there is nothing to wait for.
                if matches!(pause, Pause::Fault(_)) {
                    link.kill();
                }
                return pause;
            }
        }
    }

    /// Repeats what was cut off, if anything was, until it is answered.
    pub(crate) fn resume(&mut self, link: &Link) -> Result<(), Pause> {
        let Some(mut pending) = self.pending.take() else { return Ok(()) };
        let settled = self.settle(&mut pending, link);
        if settled.is_err() {
            self.pending = Some(pending);
        }
        settled
    }

    fn settle(&mut self, pending: &mut Pending, link: &Link) -> Result<(), Pause> {
        let source = u8::try_from(self.place[2]).unwrap() + 1;
        loop {
            pending.sent += 1;
            let ask = Ask::Act { id: pending.id, source, act: pending.act.clone() };
            match link.ask(ask) {
                Heard::CutOff => return Err(Pause::CutOff),
                Heard::Answer(Answer::Failed(word)) => match word.as_str() {
                    "stopped" => return Err(Pause::CutOff),
                    "overloaded" | "deadline_exceeded" | "interrupted" => std::thread::sleep(Duration::from_millis(5)),
                    _ => return Err(Pause::Fault(format!("{:?} came to {word}", pending.act))),
                },
                Heard::Answer(answer) => return self.note(pending, &answer).map_err(Pause::Fault),
            }
        }
    }

    fn note(&mut self, pending: &Pending, answer: &Answer) -> Result<(), String> {
        let Pending { act, expected, .. } = pending;
        if !expected.fits(answer) {
            let person = pending.person.map(|person| &self.people[person]);
            return Err(format!("{act:?}, sent {} times: {answer:?} and not {expected:?}; {person:?}", pending.sent));
        }
        let done = if let Answer::Done(told) = answer {
            match (act, pending.person) {
                (Act::Register { username, email, password }, _) => {
                    self.people.push(Person::registered(username, email.as_ref(), password, told));
                }
                (Act::Delete { .. }, Some(person)) => {
                    let mut gone = self.people.remove(person);
                    self.deleted.push(gone.user);
                    let open = gone.open.len() as u64;
                    gone.open.clear();
                    if told.as_u64() != Some(open) {
                        return Err(format!("{open} sessions were open, and {told} were ended: {gone:?}"));
                    }
                }
                (act, Some(person)) => {
                    if let Some(fault) = self.people[person].note(act, told) {
                        return Err(format!("{act:?}: {fault}"));
                    }
                }
                (act, None) => return Err(format!("{act:?} was done for nobody")),
            }
            true
        } else {
            false
        };
        let (worker, request) = (usize::try_from(self.place[2]).unwrap(), pending.id.to_string());
        let (flow, success, sent) = (act.flow(), act.success(), pending.sent);
        self.answered.push(Answered { request, worker, flow, success, done, sent });
        Ok(())
    }

    /// The next command of the schedule.
    fn draw(&mut self, link: &Link, post: &PostOffice) -> Result<Pending, Pause> {
        let [seed, life, worker] = self.place;
        let mut dice = Dice::new([seed, life, worker, self.drawn]);
        let id = [dice.next().to_be_bytes(), dice.next().to_be_bytes()].concat();
        let id = CommandId::from_bytes(id.try_into().unwrap());
        let (person, act) = self.choose(&mut dice, link, post)?;
        self.drawn += 1;
        let expected = match (&act, person) {
            (Act::Register { .. }, _) => Expected::DoneOr("username_taken"),
            (act, Some(person)) => self.people[person].expects(act),
            (_, None) => Expected::Refused("user_not_found"),
        };
        Ok(Pending { id, act, person, expected, sent: 0 })
    }

    fn choose(&self, dice: &mut Dice, link: &Link, post: &PostOffice) -> Result<(Option<usize>, Act), Pause> {
        let roll = dice.below(100);
        let index = dice.below(PEOPLE as u64) as usize % self.people.len().max(1);
        let Some(person) = self.people.get(index).filter(|_| roll >= 14 || self.people.len() == PEOPLE) else {
            return Ok((None, self.registration(dice)));
        };
        let (user, new) = (person.user, password(dice));
        let act = match roll {
            0..6 => Act::Delete { user },
            6..9 => match self.deleted.last() {
                Some(gone) => return Ok((None, Act::Enable { user: *gone })),
                None => Act::Delete { user },
            },
            14..20 => Act::LogIn { username: person.username.clone(), password: new },
            20..28 => Act::Rename { user, display_name: format!("Name {}", dice.below(1_000_000)) },
            28..36 => {
                let (join, leave) = (format!("group{}", dice.below(3)), format!("group{}", dice.below(3)));
                Act::ChangeGroups { user, join, leave }
            }
            36..41 => Act::ChangePassword { user, current: person.password.clone(), new },
            41..43 => Act::ChangePassword { user, current: password(dice), new },
            43..47 => Act::Disable { user },
            47..54 => Act::Enable { user },
            54..58 => Act::EndSessions { user },
            58..63 => match person.open.first() {
                Some(token) => Act::LogOut { token: token.clone() },
                None => Act::EndSessions { user },
            },
            63..65 if !person.ended.is_empty() => Act::LogOut { token: person.ended[0].clone() },
            65..75 => match (person.may_be_verified(), person.verification) {
                (true, Some(token)) => Act::Confirm { link: post.link(token, link)? },
                (true, None) => Act::RequestVerification { user },
                _ => Act::Enable { user },
            },
            75..77 if person.may_be_verified() => Act::RequestVerification { user },
            77..83 if person.may_be_reset() => match person.reset {
                Some(token) => Act::Reset { link: post.link(token, link)?, new },
                None => Act::RequestReset { username: person.username.clone() },
            },
            83..87 => Act::Delete { user },
            _ if person.open.len() < 10 => {
                Act::LogIn { username: person.username.clone(), password: person.password.clone() }
            }
            _ => Act::EndSessions { user },
        };
        Ok((Some(index), act))
    }

    fn registration(&self, dice: &mut Dice) -> Act {
        let [_, life, worker] = self.place;
        let username = if dice.below(8) == 0 {
            format!("wanted{}", dice.below(SHARED_NAMES))
        } else {
            format!("life{life}.worker{worker}.number{}", self.drawn)
        };
        let email = (dice.below(3) > 0).then(|| format!("life{life}.worker{worker}.{}@example.com", self.drawn));
        Act::Register { username, email, password: password(dice) }
    }
}

fn password(dice: &mut Dice) -> String {
    format!("{} lanterns over {} harbours", dice.next(), dice.next())
}

/// Where the parent finds the links that were sent: the messages that came, by the tokens of their signals.
pub(crate) struct PostOffice(Mutex<Boxes>);

struct Boxes {
    witnessed: Tail,
    sent: Tail,
    due: HashMap<SignalId, TokenId>,
    links: HashMap<SignalId, String>,
    by_token: HashMap<TokenId, String>,
}

impl PostOffice {
    pub(crate) fn new(folder: &Path) -> Self {
        let (witnessed, sent) = (Tail::new(folder.join(WITNESS)), Tail::new(folder.join(MESSAGES)));
        let (due, links, by_token) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self(Mutex::new(Boxes { witnessed, sent, due, links, by_token }))
    }

    /// Waits for the message of a token.
    fn link(&self, token: TokenId, link: &Link) -> Result<String, Pause> {
        let begun = Instant::now();
        loop {
            let mut boxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            boxes.look();
            if let Some(link) = boxes.by_token.get(&token) {
                return Ok(link.clone());
            }
            drop(boxes);
            if link.is_gone() || link.rests() {
                return Err(Pause::CutOff);
            }
            if begun.elapsed() > PATIENCE {
                return Err(Pause::Fault(format!("the message of {token} never came")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Boxes {
    fn look(&mut self) {
        let witnessed = self.witnessed.read::<Entry>();
        self.due.extend(witnessed.iter().filter_map(|entry| Some((entry.id, entry.token?))));
        let sent = self.sent.read::<Sent>();
        self.links.extend(sent.into_iter().filter_map(|sent| Some((sent.signal, sent.link?))));
        let due = std::mem::take(&mut self.due);
        for (signal, token) in due {
            match self.links.remove(&signal) {
                Some(link) => {
                    self.by_token.insert(token, link);
                }
                None => {
                    self.due.insert(signal, token);
                }
            }
        }
    }
}
