//! A life: one database from its creation through many deaths to its end, and what the parent knows of it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use majordomo::{Integrity, SignalKind};

use crate::chaos::value;
use crate::judge::{Asked, Drained, History, due, faults, tally_of};
use crate::link::{Link, PATIENCE};
use crate::load::{Pause, PostOffice, WORKERS, Worker};
use crate::wire::{Ask, DATABASE, Entry, LANES, MESSAGES, REGISTER, REWOUND, Sent, TALLY, Tail, Terms, WITNESS};

/// How much of what it knows of the log is read again after every death.
const OVERLAP: usize = 200;

pub(crate) struct Life {
    seed: u64,
    number: u64,
    folder: Option<tempfile::TempDir>,
    path: PathBuf,
    post: PostOffice,
    workers: Vec<Worker>,
    history: History,
    starts: usize,
    start_took: Duration,
    /// Whether the last end was no kill.
    clean: bool,
    witnessed: Tail,
    seen: Vec<Entry>,
    /// How many signals were pruned when the log was last read.
    pruned: u64,
}

type Faults = Vec<String>;

impl Life {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let workers = (0..WORKERS as u64).map(|worker| Worker::new([seed, number, worker])).collect();
        Self {
            seed,
            number,
            post: PostOffice::new(&path),
            witnessed: Tail::new(path.join(WITNESS)),
            folder: Some(folder),
            path,
            workers,
            history: History::default(),
            starts: 0,
            start_took: Duration::from_millis(50),
            clean: true,
            seen: Vec::new(),
            pruned: 0,
        }
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Whether the log is kept, so that a projection can be rebuilt from its beginning.
    pub(crate) const fn keeps(&self) -> bool {
        !self.number.is_multiple_of(2)
    }

    /// Starts the system.
    pub(crate) fn start(&self) -> Link {
        Link::start(&self.path, if self.keeps() { Terms::Keeps } else { Terms::Prunes })
    }

    /// How many places of the log are known.
    pub(crate) const fn length(&self) -> u64 {
        self.history.log.len() as u64
    }

    /// Notes that a subscription was asked to do what this signal tells of.
    pub(crate) fn asked(&mut self, name: &'static str, kind: SignalKind, done: bool) {
        let Asked { asked, done: answered } = self.history.operations.entry((name, kind)).or_default();
        *asked += 1;
        *answered += usize::from(done);
    }

    pub(crate) const fn history(&self) -> &History {
        &self.history
    }

    pub(crate) const fn start_took(&self) -> Duration {
        self.start_took
    }

    /// Whether nothing has to be recovered.
    pub(crate) const fn is_clean(&self) -> bool {
        self.clean
    }

    /// Leaves the files where they are, for whoever looks into them.
    pub(crate) fn keep(&mut self) -> PathBuf {
        self.folder.take().map_or_else(|| self.path.clone(), tempfile::TempDir::keep)
    }

    /// Waits until a start has come to its end.
    pub(crate) fn began(&mut self, link: &Link) -> Result<(), Faults> {
        let begun = Instant::now();
        value(link.ready())?;
        self.start_took = begun.elapsed();
        self.starts += 1;
        Ok(())
    }

    /// Notes a start that was struck.
    pub(crate) fn struck(&mut self) {
        self.starts += 1;
        // What was clean stays clean as long as nothing is there yet.
        self.clean &= !self.is_there();
    }

    /// Whether the database has been made.
    pub(crate) fn is_there(&self) -> bool {
        self.path.join(DATABASE).exists()
    }

    /// Has every command repeated that was cut off.
    pub(crate) fn resume(&mut self, link: &Link) -> Result<bool, Faults> {
        let pauses = at_once(&mut self.workers, |worker| worker.resume(link).err());
        let pauses: Vec<_> = pauses.into_iter().flatten().collect();
        let goes_on = pauses.is_empty();
        told(pauses).map(|()| goes_on)
    }

    /// Lets the load run until the instant has come, then kills. Answers whether it was the kill that ended the child.
    pub(crate) fn load_until(&mut self, link: &Link, come: impl FnOnce()) -> Result<bool, Faults> {
        let mut killed = false;
        self.load_while(link, || {
            come();
            killed = link.kill();
        })?;
        self.clean = !killed;
        Ok(killed)
    }

    /// Lets the load run for some answers, and then rest.
    pub(crate) fn load_for(&mut self, link: &Link, answers: u64) -> Result<(), Faults> {
        let until = link.answered() + answers;
        self.load_while(link, || {
            while link.answered() < until && !link.is_gone() {
                std::thread::sleep(Duration::from_millis(1));
            }
            link.rest();
        })
    }

    fn load_while(&mut self, link: &Link, come: impl FnOnce()) -> Result<(), Faults> {
        let pauses = std::thread::scope(|scope| {
            let post = &self.post;
            let run = |worker: &mut Worker| worker.run(link, post);
            let workers: Vec<_> = self.workers.iter_mut().map(|worker| scope.spawn(move || run(worker))).collect();
            come();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        told(pauses)
    }

    /// Holds what was answered against what is there. Once everything is `drained`, the subscribers too.
    pub(crate) fn judge(&mut self, link: &Link, drained: bool) -> Result<(), Faults> {
        if drained {
            value(link.ask(Ask::Drain))?;
        }
        self.read_log(link, drained)?;
        self.history.users = serde_json::from_value(value(link.ask(Ask::Users))?).unwrap();
        self.history.people = self.workers.iter().flat_map(|worker| worker.people.clone()).collect();
        self.history.answered = self.workers.iter().flat_map(|worker| worker.answered.clone()).collect();
        let people = &self.history.people;
        let tokens: Vec<_> =
            people.iter().flat_map(|person| person.open.iter().chain(&person.ended)).cloned().collect();
        let alive: Vec<bool> =
            serde_json::from_value(value(link.ask(Ask::Sessions { tokens: tokens.clone() }))?).unwrap();
        self.history.sessions = tokens.into_iter().zip(alive).collect();
        self.history.drained = if drained { Some(self.read_subscribers(link)?) } else { None };
        let faults = faults(&self.history);
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Reads on in the log, and in what was witnessed for what is pruned by now. What is known must not have changed.
    fn read_log(&mut self, link: &Link, whole: bool) -> Result<(), Faults> {
        let seen = self.witnessed.read::<Entry>();
        for entry in &seen {
            self.know(entry)?;
        }
        self.seen.extend(seen);
        let mut after = if whole { 0 } else { self.history.log.len().saturating_sub(OVERLAP) as u64 };
        let mut kept = None;
        loop {
            let page: Vec<Entry> = serde_json::from_value(value(link.ask(Ask::Log { after }))?).unwrap();
            let Some(last) = page.last() else { break };
            after = last.seq;
            kept = kept.or(page.first().map(|first| first.seq));
            for entry in &page {
                self.know(entry)?;
            }
        }
        if whole {
            self.pruned = kept.map_or(self.history.log.len() as u64, |first| first - 1);
        }
        Ok(())
    }

    fn know(&mut self, entry: &Entry) -> Result<(), Faults> {
        let log = &mut self.history.log;
        match log.get(usize::try_from(entry.seq - 1).unwrap()) {
            Some(known) if known == entry => Ok(()),
            Some(known) => Err(vec![format!("the log has changed: {known:?} became {entry:?}")]),
            None if entry.seq == log.len() as u64 + 1 => {
                log.push(entry.clone());
                Ok(())
            }
            None => Err(vec![format!("lost: places {} to {} of the log", log.len() + 1, entry.seq - 1)]),
        }
    }

    fn read_subscribers(&mut self, link: &Link) -> Result<Drained, Faults> {
        let keys = tally_of(&self.history.log).into_keys().collect();
        let tally: Vec<(String, u64)> = serde_json::from_value(value(link.ask(Ask::Projection { keys }))?).unwrap();
        let mut trail: Vec<(u64, majordomo::SignalId)> = Vec::new();
        loop {
            let after = trail.last().map_or(0, |(seq, _)| *seq);
            let page = value(link.ask(Ask::Trail { after }))?;
            let page: Vec<(u64, majordomo::SignalId)> = serde_json::from_value(page).unwrap();
            if page.is_empty() {
                break;
            }
            trail.extend(page);
        }
        let named = |entries: &[Entry]| entries.iter().map(|entry| (entry.seq, entry.id)).collect::<Vec<_>>();
        let mut seen: BTreeMap<_, _> =
            REWOUND.into_iter().map(|name| (name, named(&Tail::new(self.path.join(name)).read()))).collect();
        seen.insert(WITNESS, named(&self.seen));
        let messages = Tail::new(self.path.join(MESSAGES)).read::<Sent>();
        let messages = messages.into_iter().map(|sent| sent.signal).collect();
        Ok(Drained { starts: self.starts, seen, tally: tally.into_iter().collect(), trail, messages })
    }

    /// Replays, with nothing else going on: a subscription that is moved back sees all that follows once more, and
    /// nothing else; a projection that is rebuilt is as it was.
    pub(crate) fn replay(&mut self, link: &Link) -> Result<(), Faults> {
        for name in REWOUND {
            let to = self.length() / 2;
            let mut tail = Tail::new(self.path.join(name));
            tail.read::<Entry>();
            value(link.ask(Ask::Move { name: name.to_owned(), to }))?;
            self.asked(name, SignalKind::SubscriptionMoved, true);
            let mut expected: Vec<_> = due(&self.history.log, name).filter(|entry| entry.seq >= to).collect();
            let (begun, mut seen) = (Instant::now(), Vec::<Entry>::new());
            while seen.len() < expected.len() && begun.elapsed() < PATIENCE {
                value(link.ask(Ask::Drain))?;
                seen.extend(tail.read::<Entry>());
            }
            seen.retain(|entry| entry.seq <= self.length());
            // Lanes run side by side; what holds within each of them is judged with everything else.
            seen.sort_by_key(|entry| entry.seq);
            expected.sort_by_key(|entry| entry.seq);
            if !seen.iter().eq(expected.iter().copied()) {
                let (seen, expected) = (seen.len(), expected.len());
                return Err(vec![format!("{name} was moved to {to} and saw {seen} of {expected} signals again")]);
            }
            self.judge(link, true)?;
        }
        if value(link.ask(Ask::Rebuild))? != true {
            return Err(vec!["the log is kept, and the rebuild is not complete".to_owned()]);
        }
        self.asked(TALLY, SignalKind::ProjectionRebuildStarted, true);
        self.judge(link, true)?;
        let of = |kind| self.history.log.iter().rev().find(|entry| entry.kind == kind).map(|entry| entry.seq);
        if of(SignalKind::ProjectionRebuilt) > of(SignalKind::ProjectionRebuildStarted) {
            return Ok(());
        }
        Err(vec!["the rebuild has not come to its end".to_owned()])
    }

    /// Shuts the system down, and looks at what it leaves.
    pub(crate) fn end(&mut self, link: &Link) -> Result<(), Faults> {
        let in_time = value(link.ask(Ask::Shutdown))?;
        if !link.wait() || in_time != true {
            return Err(vec!["the system did not shut down as it should".to_owned()]);
        }
        match majordomo::check_integrity(self.path.join(DATABASE)) {
            Ok(Integrity::Sound) => {}
            other => return Err(vec![format!("the file is not sound: {other:?}")]),
        }
        let keys = format!("{DATABASE}.keys");
        let names =
            std::fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let known = [DATABASE, &keys, WITNESS, REGISTER, LANES, MESSAGES];
        let strays = names.filter(|name| !known.contains(&name.as_str()));
        let strays: Vec<_> = strays.map(|name| format!("{name} was left behind")).collect();
        if strays.is_empty() { Ok(()) } else { Err(strays) }
    }
}

/// Lets every worker do something at the same time.
fn at_once<T: Send>(workers: &mut [Worker], work: impl Fn(&mut Worker) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let workers: Vec<_> = workers.iter_mut().map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

/// The faults among the pauses.
fn told(pauses: Vec<Pause>) -> Result<(), Faults> {
    let faults: Vec<_> = pauses
        .into_iter()
        .filter_map(|pause| match pause {
            Pause::Fault(fault) => Some(fault),
            Pause::CutOff | Pause::Rest => None,
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// What came of all lives.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) load: u64,
    pub(crate) start: u64,
    pub(crate) recovery: u64,
    pub(crate) shutdown: u64,
    pub(crate) pruning: u64,
    pub(crate) rewind: u64,
    pub(crate) rebuild: u64,
    /// Shutdowns that were done before the kill.
    pub(crate) ended: u64,
    lives: u64,
    answered: u64,
    acked: u64,
    signals: u64,
    pruned: u64,
    messages: u64,
    duplicates: u64,
}

impl Figures {
    pub(crate) const fn kills(&self) -> u64 {
        self.load + self.start + self.recovery + self.shutdown + self.pruning + self.rewind + self.rebuild
    }

    /// Adds what a life came to that was judged to its end.
    pub(crate) fn add(&mut self, life: &Life) {
        let history = &life.history;
        self.lives += 1;
        self.answered += history.answered.len() as u64;
        self.signals += history.log.len() as u64;
        self.pruned += life.pruned;
        self.acked += history.answered.iter().filter(|answered| answered.done).count() as u64;
        if let Some(drained) = &history.drained {
            for seen in drained.seen.values() {
                self.duplicates += repetitions(seen);
            }
            self.messages += drained.messages.len() as u64;
            self.duplicates += repetitions(&drained.messages);
        }
    }

    /// How much there was of it all.
    pub(crate) fn sizes(&self) -> String {
        let Self { lives, answered, signals, pruned, messages, ended, .. } = self;
        format!(
            "crash: lives {lives}, commands answered {answered}, signals {signals}, of them pruned {pruned}, messages \
             {messages}, shutdowns done before the kill {ended}"
        )
    }
}

fn repetitions<T: std::hash::Hash + Eq>(all: &[T]) -> u64 {
    (all.len() - all.iter().collect::<HashSet<_>>().len()) as u64
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "crash: kills {}, of them during start {}, recovery {}, shutdown {}, pruning {}, rewind {}, rebuild {}; \
             acked changes {}, lost 0, duplicates delivered {}",
            self.kills(),
            self.start,
            self.recovery,
            self.shutdown,
            self.pruning,
            self.rewind,
            self.rebuild,
            self.acked,
            self.duplicates,
        )
    }
}
