//! The poison pill: a signal that takes the process with it each time that one subscriber is handed it.

use majordomo::{CommandId, UserId};
use serde_json::Value;

use crate::chaos::value;
use crate::judge::due;
use crate::link::{Heard, Link};
use crate::wire::{Act, Ask, Entry, PILL, PILL_ATTEMPTS, POISON, Tail, Terms};

/// Users beside the one whose signal is the pill.
const USERS: usize = 12;
/// What a process that aborts is ended by.
const ABORTED: i32 = 6;

/// Lets a subscriber abort the process at one signal, one by one and in lanes and batches.
///
/// # Panics
/// If the process dies more or less often than the signal may be attempted, or anything is lost.
pub(crate) fn run() {
    for (concurrency, batch) in [(1, 1), (4, 4)] {
        swallow(Terms::Poisoned { concurrency, batch });
    }
    println!(
        "crash: a signal that aborts the process is a dead letter after {PILL_ATTEMPTS} crashes, and the rest is handled"
    );
}

/// A system that dies, and is started again.
struct Mortal {
    folder: tempfile::TempDir,
    terms: Terms,
    link: Link,
    deaths: u32,
}

impl Mortal {
    fn born(terms: Terms) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let link = Link::start(folder.path(), terms);
        Self { folder, terms, link, deaths: 0 }
    }

    /// Asks until it is answered.
    fn ask(&mut self, ask: &Ask) -> Value {
        loop {
            match self.link.ask(ask.clone()) {
                Heard::Answer(answer) => return value(Heard::Answer(answer)).unwrap(),
                Heard::CutOff => {
                    assert_eq!(self.link.ended_by(), Some(ABORTED));
                    self.deaths += 1;
                    assert!(self.deaths <= PILL_ATTEMPTS, "{:?}: the process dies again and again", self.terms);
                    self.link = Link::start(self.folder.path(), self.terms);
                }
            }
        }
    }

    fn act(&mut self, act: Act) -> Value {
        self.ask(&Ask::Act { id: CommandId::new(), source: 1, act })
    }
}

fn swallow(terms: Terms) {
    let mut system = Mortal::born(terms);
    let password = "nine lanterns over a quiet harbour".to_owned();
    let mut users: Vec<UserId> = Vec::new();
    for number in 0..=USERS {
        let register = Act::Register { username: format!("user{number}"), email: None, password: password.clone() };
        let reply = system.act(register);
        users.push(serde_json::from_value(reply["user"].clone()).unwrap());
        if number == USERS / 2 {
            system.act(Act::Disable { user: users[0] });
        }
    }
    for (number, user) in users.iter().enumerate().skip(1) {
        system.act(Act::LogIn { username: format!("user{number}"), password: password.clone() });
        system.act(Act::Rename { user: *user, display_name: "Somebody".to_owned() });
    }
    system.ask(&Ask::Drain);
    assert_eq!(system.deaths, PILL_ATTEMPTS, "{terms:?}");
    let letters: Vec<(Entry, u32)> =
        serde_json::from_value(system.ask(&Ask::Letters { name: PILL.to_owned() })).unwrap();
    let [(letter, attempts)] = letters.as_slice() else { panic!("{terms:?}: {letters:?}") };
    assert_eq!((letter.kind, letter.user, *attempts), (POISON, Some(users[0]), PILL_ATTEMPTS), "{terms:?}");
    let log: Vec<Entry> = serde_json::from_value(system.ask(&Ask::Log { after: 0 })).unwrap();
    let seen: Vec<Entry> = Tail::new(system.folder.path().join(PILL)).read();
    for entry in due(&log, PILL) {
        assert_eq!(seen.contains(entry), entry.kind != POISON, "{terms:?}: {entry:?}");
    }
    assert_eq!(value(system.link.ask(Ask::Shutdown)).unwrap(), true);
    assert!(system.link.wait());
}
