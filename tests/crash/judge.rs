//! The judge: holds what the parent was answered against what the log, the rows and the subscribers tell.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use majordomo::{FlowId, FlowKind, Lane, SignalClass, SignalId, SignalKind, UserId};

use crate::load::{Answered, WORKERS};
use crate::person::Person;
use crate::wire::{ECHO, Entry, FOLD, LANES, REGISTER, REGISTER_KINDS, TALLY, WITNESS, fold, tally_keys};

/// Everything that is known of one life of a database.
#[derive(Clone, Default)]
pub(crate) struct History {
    /// The log from its beginning, what was pruned meanwhile included.
    pub(crate) log: Vec<Entry>,
    /// What was answered, worker by worker in the order of the answers.
    pub(crate) answered: Vec<Answered>,
    /// Who must be there.
    pub(crate) people: Vec<Person>,
    /// The users as the system shows them.
    pub(crate) users: Vec<serde_json::Value>,
    /// The sessions, and whether each opens anything.
    pub(crate) sessions: HashMap<String, bool>,
    /// How often a subscription was asked to do this, by the signal that tells of it.
    pub(crate) operations: BTreeMap<(&'static str, SignalKind), Asked>,
    /// What is only settled once everything is drained.
    pub(crate) drained: Option<Drained>,
}

/// How often something was asked for, and how often it was answered as done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) asked: usize,
    pub(crate) done: usize,
}

/// What the subscribers came to.
#[derive(Clone, Default)]
pub(crate) struct Drained {
    /// How often the system was started.
    pub(crate) starts: usize,
    /// What each subscriber saw, in order, repetitions included.
    pub(crate) seen: BTreeMap<&'static str, Vec<(u64, SignalId)>>,
    pub(crate) tally: BTreeMap<String, u64>,
    pub(crate) trail: Vec<(u64, SignalId)>,
    /// The signals that messages were sent for.
    pub(crate) messages: Vec<SignalId>,
}

/// Everything that is wrong, in sentences; what is lost says so.
pub(crate) fn faults(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    let flows = log_faults(history, &mut faults);
    answer_faults(history, &flows, &mut faults);
    row_faults(history, &mut faults);
    operation_faults(history, &mut faults);
    if let Some(drained) = &history.drained {
        seen_faults(history, drained, &mut faults);
        tally_faults(history, drained, &mut faults);
        delivery_faults(history, drained, &flows, &mut faults);
        echo_faults(history, &mut faults);
    }
    faults
}

type Flows<'a> = HashMap<FlowId, Vec<&'a Entry>>;

/// The log is gapless, no name stands twice, and every flow is whole: one start at first, one end at last.
fn log_faults<'a>(history: &'a History, faults: &mut Vec<String>) -> Flows<'a> {
    let (mut names, mut flows) = (HashSet::new(), Flows::new());
    for (place, entry) in (1..).zip(&history.log) {
        if entry.seq != place {
            faults.push(format!("place {place} of the log is {entry:?}"));
            break;
        }
        if !names.insert(entry.id) {
            faults.push(format!("a signal stands twice: {entry:?}"));
        }
        let alone = entry.kind.class() == SignalClass::Operation || entry.sender.as_str() == ECHO;
        if !alone {
            flows.entry(entry.flow).or_default().push(entry);
        }
    }
    for (flow, signals) in &flows {
        if let Some(fault) = flow_fault(signals) {
            let kinds: Vec<_> = signals.iter().map(|entry| entry.kind.as_str()).collect();
            faults.push(format!("{flow} {fault}: {kinds:?}"));
        }
    }
    flows
}

fn flow_fault(signals: &[&Entry]) -> Option<&'static str> {
    let starts = signals.iter().filter(|entry| !entry.kind.starts().is_empty()).count();
    let [kind] = signals[0].kind.starts() else { return Some("does not begin with its start") };
    let ends: Vec<_> = (1..).zip(signals).filter(|(_, entry)| !entry.kind.ends().is_empty()).collect();
    match ends.as_slice() {
        _ if starts != 1 => Some("starts twice"),
        _ if signals.iter().any(|entry| entry.lane != signals[0].lane) => Some("is in two lanes"),
        // Told to be open still by whoever looks at deliveries.
        [] if *kind == FlowKind::Delivery => None,
        [(last, end)] if *last == signals.len() && end.kind.ends().contains(kind) => None,
        [] => Some("has no end"),
        [_] => Some("has its end elsewhere than at last, or another one"),
        _ => Some("has several ends"),
    }
}

/// Every answer has its flow in the log, once and ended as answered, in the order in which a worker was answered.
fn answer_faults(history: &History, flows: &Flows<'_>, faults: &mut Vec<String>) {
    let mut by_request: HashMap<&str, Vec<&[&Entry]>> = HashMap::new();
    for signals in flows.values().filter(|signals| !signals[0].kind.starts().contains(&FlowKind::Delivery)) {
        if let Some(request) = &signals[0].request {
            by_request.entry(request).or_default().push(signals);
        }
    }
    let mut latest = [0; WORKERS];
    for answered in &history.answered {
        let runs = by_request.get(answered.request.as_str()).map_or(&[][..], Vec::as_slice);
        match decisive_end(answered, runs) {
            Ok(seq) if seq <= latest[answered.worker] => {
                faults.push(format!("{answered:?} stands ahead of what was answered before it"));
            }
            Ok(seq) => latest[answered.worker] = seq,
            Err(fault) => faults.push(format!("{answered:?}: {fault}")),
        }
    }
}

/// The place of the end that the answer speaks of.
fn decisive_end(answered: &Answered, runs: &[&[&Entry]]) -> Result<u64, &'static str> {
    if runs.iter().any(|signals| !signals[0].kind.starts().contains(&answered.flow)) {
        return Err("a flow of another kind ran under its name");
    }
    if runs.len() > answered.sent as usize {
        return Err("it ran more often than it was sent");
    }
    let ends = runs.iter().filter_map(|signals| signals.last());
    let (done, others): (Vec<&&Entry>, Vec<&&Entry>) = ends.partition(|end| end.kind == answered.success);
    // A login is done anew, since its answer held a secret.
    let repeatable = answered.flow == FlowKind::Authenticate;
    let decisive = match (answered.done, done.as_slice()) {
        (true, []) => return Err("lost: the change that was answered is not in the log"),
        (true, [_, _, ..]) if !repeatable => return Err("the change was made twice"),
        (true, done) => done.iter().map(|end| end.seq).max(),
        (false, []) => others.iter().map(|end| end.seq).max(),
        (false, _) => return Err("it was refused, and is in the log as done"),
    };
    decisive.ok_or("lost: the refusal that was answered is not in the log")
}

/// The users are those that the log tells of, and each is as answered.
fn row_faults(history: &History, faults: &mut Vec<String>) {
    let mut told = BTreeSet::new();
    for entry in &history.log {
        let fits = match (entry.kind, entry.user) {
            (SignalKind::UserRegistered, Some(user)) => told.insert(user),
            (SignalKind::UserDeleted, Some(user)) => told.remove(&user),
            _ => true,
        };
        if !fits {
            faults.push(format!("a user came or went twice: {entry:?}"));
        }
    }
    let id = |user: &serde_json::Value| serde_json::from_value::<UserId>(user["id"].clone()).unwrap();
    let shown: BTreeMap<_, _> = history.users.iter().map(|user| (id(user), user)).collect();
    let there: BTreeSet<_> = shown.keys().copied().collect();
    if there != told {
        let (rows, signals): (Vec<_>, Vec<_>) = (there.difference(&told).collect(), told.difference(&there).collect());
        faults.push(format!("users without signals: {rows:?}; signals without users: {signals:?}"));
    }
    for person in &history.people {
        match shown.get(&person.user) {
            Some(user) => faults.extend(person.differs_from(user)),
            None => faults.push(format!("lost: {person:?}")),
        }
        let open = person.open.iter().map(|token| (token, true));
        for (token, expected) in open.chain(person.ended.iter().map(|token| (token, false))) {
            match history.sessions.get(token) {
                Some(alive) if *alive != expected => {
                    faults.push(format!("a session of {} is alive: {alive}", person.user));
                }
                _ => {}
            }
        }
    }
}

/// What was asked of a subscription and answered is told in the log, and nothing that was not asked for.
fn operation_faults(history: &History, faults: &mut Vec<String>) {
    for ((name, kind), Asked { asked, done }) in &history.operations {
        let told = history.log.iter().filter(|entry| entry.kind == *kind && entry.descends_from(name)).count();
        if told < *done {
            faults.push(format!("lost: {done} of {kind:?} were answered to {name}, and {told} are told"));
        }
        if told > *asked {
            faults.push(format!("{asked} of {kind:?} were asked of {name}, and {told} are told"));
        }
    }
}

/// What a subscriber asked for.
pub(crate) fn due<'a>(log: &'a [Entry], name: &str) -> impl Iterator<Item = &'a Entry> {
    let (name, all) = (name.to_owned(), name != REGISTER);
    let asked_for = move |entry: &Entry| all || REGISTER_KINDS.contains(&entry.kind);
    log.iter().filter(move |entry| asked_for(entry) && !entry.descends_from(&name))
}

/// Every subscriber saw everything that it asked for, in order; what it saw again follows a start, or a move. One with
/// several lanes saw each lane so.
fn seen_faults(history: &History, drained: &Drained, faults: &mut Vec<String>) {
    for name in [WITNESS, REGISTER, LANES] {
        let lane = |entry: &Entry| (name == LANES).then_some(entry.lane);
        let mut lanes: BTreeMap<Option<Lane>, [Vec<Place>; 2]> = BTreeMap::new();
        let mut lane_of = HashMap::new();
        for entry in due(&history.log, name) {
            lanes.entry(lane(entry)).or_default()[0].push((entry.seq, entry.id));
            lane_of.insert(entry.id, lane(entry));
        }
        for signal in drained.seen.get(name).into_iter().flatten() {
            match lane_of.get(&signal.1) {
                Some(lane) => lanes.entry(*lane).or_default()[1].push(*signal),
                None => faults.push(format!("{name} saw {signal:?}, which it did not ask for or which is not there")),
            }
        }
        let moves = history.operations.get(&(name, SignalKind::SubscriptionMoved)).map_or(0, |moves| moves.asked);
        for [due, seen] in lanes.values() {
            match repetitions(due, seen) {
                Ok(repetitions) if repetitions >= drained.starts.max(1) + moves => {
                    let starts = drained.starts;
                    faults.push(format!("{name} went back {repetitions} times in {starts} starts and {moves} moves"));
                }
                Ok(_) => {}
                Err(fault) => faults.push(format!("{name} {fault}")),
            }
        }
    }
    let due: Vec<_> = history.log.iter().map(|entry| (entry.seq, entry.id)).collect();
    if drained.trail != due {
        let differing = due.iter().zip(&drained.trail).find(|(due, trail)| due != trail);
        faults.push(format!("the trail has {} of {} records; {differing:?}", drained.trail.len(), due.len()));
    }
}

type Place = (u64, SignalId);

/// How often it went back, having seen everything in order.
fn repetitions(due: &[Place], seen: &[Place]) -> Result<usize, String> {
    let (mut next, mut furthest, mut repetitions) = (0, 0, 0);
    for signal in seen {
        if due.get(next) != Some(signal) {
            let Ok(again) = due[..furthest].binary_search(signal) else {
                return Err(format!("saw {signal:?} out of order, {:?} being next", due.get(next)));
            };
            next = again;
            repetitions += 1;
        }
        next += 1;
        furthest = furthest.max(next);
    }
    match due.get(furthest) {
        Some(missed) => Err(format!("never saw {missed:?} and what is behind it: lost")),
        None => Ok(repetitions),
    }
}

/// What the tally must hold, computed from the log.
pub(crate) fn tally_of(log: &[Entry]) -> BTreeMap<String, u64> {
    let mut tally = BTreeMap::new();
    for entry in due(log, TALLY) {
        for key in tally_keys(entry) {
            *tally.entry(key).or_insert(0) += 1;
        }
    }
    tally.insert(FOLD.to_owned(), due(log, TALLY).fold(0, fold));
    tally
}

fn tally_faults(history: &History, drained: &Drained, faults: &mut Vec<String>) {
    let computed = tally_of(&history.log);
    let differs = |(key, value): &(&String, &u64)| drained.tally.get(*key) != Some(*value);
    if let Some((key, value)) = computed.iter().find(differs) {
        faults.push(format!("the projection has {:?} for {key}, the log comes to {value}", drained.tally.get(key)));
    }
}

/// Every delivery has ended; what ended as sent was sent; and nothing was sent that was not told.
fn delivery_faults(history: &History, drained: &Drained, flows: &Flows<'_>, faults: &mut Vec<String>) {
    let sent: HashSet<_> = drained.messages.iter().collect();
    for (flow, signals) in flows.iter().filter(|(_, signals)| signals[0].kind.starts() == [FlowKind::Delivery]) {
        let accepted = [SignalKind::UserEmailVerificationInitiated, SignalKind::PasswordResetRequestProcessed];
        match signals.as_slice() {
            [due] => faults.push(format!("the delivery {flow} has not ended: {due:?}")),
            [due, .., end] if accepted.contains(&end.kind) && !sent.contains(&due.id) => {
                faults.push(format!("lost: the message of {due:?} is told to be sent"));
            }
            _ => {}
        }
    }
    let told: HashSet<_> = history.log.iter().map(|entry| &entry.id).collect();
    faults.extend(sent.difference(&told).map(|id| format!("a message was sent for {id}, which is not in the log")));
}

/// Every registration has its one echo.
fn echo_faults(history: &History, faults: &mut Vec<String>) {
    let mut echoes: HashMap<_, usize> = HashMap::new();
    for entry in history.log.iter().filter(|entry| entry.sender.as_str() == ECHO) {
        *echoes.entry(entry.cause).or_default() += 1;
    }
    let registered = history.log.iter().filter(|entry| entry.kind == SignalKind::UserRegistered);
    for entry in registered {
        let count = echoes.remove(&Some(entry.flow)).unwrap_or(0);
        if count != 1 {
            faults.push(format!("{entry:?} has {count} follow-ups"));
        }
    }
    faults.extend(echoes.keys().map(|cause| format!("a follow-up of nothing that was registered: {cause:?}")));
}

/// A way to spoil a history.
type Spoil = (&'static str, fn(&mut History));

/// Histories that the judge must not let pass, made of one that it did: the test of the judge. Answers what it let pass.
pub(crate) fn blind_spots(sound: &History) -> Vec<&'static str> {
    let caught = |spoil: &fn(&mut History)| {
        let mut spoilt = sound.clone();
        spoil(&mut spoilt);
        !faults(&spoilt).is_empty()
    };
    SPOILS.iter().filter(|(_, spoil)| !caught(spoil)).map(|(what, _)| *what).collect()
}

/// How many ways to spoil a history there are.
pub(crate) const fn spoils() -> usize {
    SPOILS.len()
}

const SPOILS: &[Spoil] = &[
    ("an answered registration that is not in the log", |history| {
        let lost = history.log.iter().find(|entry| entry.kind == SignalKind::UserRegistered).unwrap().flow;
        history.log.retain(|entry| entry.flow != lost);
        renumber(history);
    }),
    ("an answered refusal that is not in the log", |history| {
        let refused = history.answered.iter().find(|answered| !answered.done).unwrap().request.clone();
        history.log.retain(|entry| entry.request.as_ref() != Some(&refused));
        renumber(history);
    }),
    ("an answered user who is not there", |history| {
        let lost = history.people[0].user.to_string();
        history.users.retain(|user| user["id"] != lost);
    }),
    ("a change that was rolled back", |history| history.people[0].version += 1_000),
    ("a user whom nobody told of", |history| {
        let mut ghost = history.users[0].clone();
        ghost["id"] = serde_json::json!(UserId::new());
        history.users.push(ghost);
    }),
    ("a session that was lost", |history| *history.sessions.values_mut().find(|alive| **alive).unwrap() = false),
    ("a session that came back", |history| *history.sessions.values_mut().find(|alive| !**alive).unwrap() = true),
    ("a gap in the log", |history| {
        history.log.remove(5);
    }),
    ("a signal that stands twice", |history| {
        let again = history.log[5].clone();
        history.log.push(again);
        renumber(history);
    }),
    ("a flow without its end", |history| {
        let end = history.log.iter().position(|entry| entry.kind == SignalKind::UserAuthenticated).unwrap();
        history.log.remove(end);
        renumber(history);
    }),
    ("a flow without its start", |history| {
        let start = history.log.iter().position(|entry| entry.kind == SignalKind::UserUpdateStarted).unwrap();
        history.log.remove(start);
        renumber(history);
    }),
    ("a change that was made twice", |history| {
        let request = history.answered.iter().find(|answered| answered.flow == FlowKind::Update).unwrap();
        let run = history.log.iter().filter(|entry| entry.request.as_ref() == Some(&request.request));
        let flow = FlowId::new();
        let again: Vec<_> = run.map(|entry| Entry { flow, id: SignalId::new(), ..entry.clone() }).collect();
        history.log.extend(again);
        renumber(history);
    }),
    ("answers in another order", |history| history.answered.reverse()),
    ("a signal that a subscriber never saw", |history| {
        let missed = seen(history, WITNESS)[7];
        seen(history, WITNESS).retain(|signal| *signal != missed);
    }),
    ("a last signal that a subscriber never saw", |history| {
        let last = history.log.last().unwrap().seq;
        seen(history, WITNESS).retain(|(seq, _)| *seq != last);
    }),
    ("signals that a subscriber saw in another order", |history| seen(history, REGISTER).reverse()),
    ("a signal that a subscriber saw and that is not there", |history| seen(history, WITNESS)[3].1 = SignalId::new()),
    ("a signal that one lane of a subscriber never saw", |history| {
        let missed = seen(history, LANES)[7];
        seen(history, LANES).retain(|signal| *signal != missed);
    }),
    ("signals of lanes that a subscriber saw in another order", |history| seen(history, LANES).reverse()),
    ("a subscriber that goes back for no reason", |history| {
        let seen = seen(history, LANES);
        for _ in 0..1_000 {
            seen.extend_from_within(..1);
        }
    }),
    ("a move that was answered and is not in the log", |history| {
        history.operations.insert((LANES, SignalKind::SubscriptionMoved), Asked { asked: 1_000, done: 1_000 });
    }),
    ("a projection that is one too many", |history| {
        let tally = &mut history.drained.as_mut().unwrap().tally;
        *tally.get_mut("kind user_registered").unwrap() += 1;
    }),
    ("a projection in another order", |history| {
        *history.drained.as_mut().unwrap().tally.get_mut(FOLD).unwrap() ^= 1;
    }),
    ("a record that is missing in the trail", |history| {
        history.drained.as_mut().unwrap().trail.remove(3);
    }),
    ("a message that was never sent", |history| history.drained.as_mut().unwrap().messages.clear()),
    ("a message for a signal that was never committed", |history| {
        history.drained.as_mut().unwrap().messages.push(SignalId::new());
    }),
    ("a follow-up that is missing", |history| {
        let echo = history.log.iter().position(|entry| entry.sender.as_str() == ECHO).unwrap();
        history.log.remove(echo);
        renumber(history);
    }),
];

fn seen<'a>(history: &'a mut History, name: &'static str) -> &'a mut Vec<(u64, SignalId)> {
    history.drained.as_mut().unwrap().seen.get_mut(name).unwrap()
}

/// Closes the gaps, and lets the subscribers and the projection tell the same, so that nothing but the log is spoilt.
fn renumber(history: &mut History) {
    for (place, entry) in (1..).zip(&mut history.log) {
        entry.seq = place;
    }
    let signals = history.log.iter().map(|entry| (entry.seq, entry.id)).collect();
    let drained = history.drained.as_mut().unwrap();
    drained.tally = tally_of(&history.log);
    for name in [WITNESS, REGISTER, LANES] {
        drained.seen.insert(name, due(&history.log, name).map(|entry| (entry.seq, entry.id)).collect());
    }
    drained.trail = signals;
}
