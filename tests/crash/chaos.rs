//! The chaos: when each kill falls, how long a life lasts, and what comes of it all.

use std::process::Command;
use std::sync::mpsc::Receiver;
use std::thread::sleep;
use std::time::Duration;

use majordomo::SignalKind;

use crate::child;
use crate::judge;
use crate::life::{Figures, Life};
use crate::link::{Heard, Link};
use crate::load::Dice;
use crate::wire::{Answer, Ask, REWOUND, TALLY};

/// How much is asked for at the end of a life, so that however it went there is something to judge.
const LAST_ANSWERS: u64 = 200;

/// What the system is doing when it is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Answering commands.
    Load,
    /// Pruning the log, and answering commands.
    Pruning,
    /// Shutting down, with commands under way.
    Shutdown,
    /// Moving a subscription back, or handing it what it saw already.
    Rewind,
    /// Building a projection anew.
    Rebuild,
}

/// What a subscription was asked to do, by the signal that tells of it, and where the answer comes.
type Operation = (&'static str, SignalKind, Option<Receiver<Answer>>);

impl Moment {
    fn of(dice: &mut Dice, life: &Life) -> Self {
        match dice.below(10) {
            0..4 => Self::Load,
            4..6 => Self::Rewind,
            // A rebuild needs the log from its beginning.
            6..8 if life.keeps() => Self::Rebuild,
            6..8 => Self::Pruning,
            _ => Self::Shutdown,
        }
    }

    /// Waits for the instant, bringing about what is to be killed. The load runs meanwhile.
    fn come(self, link: &Link, dice: &mut Dice) -> Vec<Operation> {
        let mut operations = Vec::new();
        let answers = link.answered() + 1 + dice.below(100);
        while link.answered() < answers && !link.is_gone() {
            sleep(Duration::from_micros(200));
        }
        match self {
            Self::Load => {}
            Self::Pruning => {
                // The first of them may have much to do; the kill is to fall into any.
                for _ in 0..dice.below(4) {
                    link.ask(Ask::Sweep);
                }
                link.tell(Ask::Sweep);
            }
            Self::Shutdown => {
                link.tell(Ask::Shutdown);
            }
            Self::Rewind => {
                // Whoever is moved ahead of where they were misses something, and has to.
                let floors = REWOUND.map(|name| match link.ask(Ask::Floor { name: name.to_owned() }) {
                    Heard::Answer(Answer::Done(floor)) => floor.as_u64().unwrap_or(0),
                    _ => 0,
                });
                for _ in 0..=dice.below(3) {
                    let which = usize::try_from(dice.below(2)).unwrap();
                    let (name, to) = (REWOUND[which], 1 + dice.below(floors[which] + 1));
                    let ask = Ask::Move { name: name.to_owned(), to };
                    operations.push((name, SignalKind::SubscriptionMoved, link.tell(ask)));
                }
            }
            Self::Rebuild => {
                for _ in 0..=dice.below(2) {
                    operations.push((TALLY, SignalKind::ProjectionRebuildStarted, link.tell(Ask::Rebuild)));
                }
            }
        }
        let within = match self {
            Self::Load => 2_000,
            Self::Pruning => 12_000,
            Self::Rewind | Self::Rebuild => 40_000,
            Self::Shutdown => 60_000,
        };
        sleep(Duration::from_micros(dice.below(within)));
        operations
    }

    const fn counted(self, figures: &mut Figures) {
        match self {
            Self::Load => figures.load += 1,
            Self::Pruning => figures.pruning += 1,
            Self::Shutdown => figures.shutdown += 1,
            Self::Rewind => figures.rewind += 1,
            Self::Rebuild => figures.rebuild += 1,
        }
    }
}

/// Kills the system so often, in one life of a database after the other, and says what came of it.
///
/// # Panics
/// If anything that was answered is lost, or anything else is as it must not be.
pub(crate) fn run(seed: u64, kills: u64) {
    println!("crash: seed {seed}, {kills} kills");
    let mut figures = Figures::default();
    let mut number = 0;
    while figures.kills() < kills {
        let mut life = Life::new(seed, number);
        if let Err(faults) = live(&mut life, &mut figures, kills) {
            let folder = life.keep();
            for fault in faults.iter().take(20) {
                println!("crash: {fault}");
            }
            println!("crash: seed {seed}, life {number}: {} faults; the files are in {folder:?}", faults.len());
            std::process::exit(1);
        }
        number += 1;
    }
    println!("{}", figures.sizes());
    println!("{figures}, seed {seed}");
}

/// Lets the child tell lies, and sees that they are found out.
///
/// # Panics
/// If a lie passes.
pub(crate) fn control(seed: u64) {
    for lie in child::LIES {
        let run = Command::new(std::env::current_exe().unwrap())
            .env(child::CHILD_LIES, lie)
            .envs([("SEED", seed.to_string()), ("KILLS", "4".to_owned())])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.code() == Some(1) && said.contains("faults"), "the lie {lie} passes: {said}");
        // The files of a run that failed are left for whoever looks into them.
        let folder = said.lines().find_map(|line| line.split("the files are in \"").nth(1)?.strip_suffix('"'));
        std::fs::remove_dir_all(folder.unwrap()).unwrap();
    }
    println!("crash: the lies {} are found out", child::LIES.join(" and "));
}

fn live(life: &mut Life, figures: &mut Figures, kills: u64) -> Result<(), Vec<String>> {
    let dice_of = |life: &Life, round: u64| Dice::new([life.seed(), life.number(), u64::MAX, round]);
    let rounds = 8 + dice_of(life, 0).below(25);
    let first = life.number() == 0;
    for round in 1..=rounds {
        let mut dice = dice_of(life, round);
        if figures.kills() >= kills {
            break;
        }
        let link = begin(life, &mut dice, figures, kills)?;
        if !life.resume(&link)? {
            continue;
        }
        life.judge(&link, dice.below(8) == 0)?;
        if figures.kills() >= kills {
            break;
        }
        let moment = Moment::of(&mut dice, life);
        let mut operations = Vec::new();
        if life.load_until(&link, || operations = moment.come(&link, &mut dice))? {
            moment.counted(figures);
        } else {
            figures.ended += 1;
        }
        for (name, kind, answer) in operations {
            let done = answer.and_then(|answer| answer.recv().ok()).is_some_and(|told| matches!(told, Answer::Done(_)));
            life.asked(name, kind, done);
        }
    }
    let link = life.start();
    life.began(&link)?;
    life.resume(&link)?;
    // After all that it goes on as ever.
    life.load_for(&link, LAST_ANSWERS)?;
    life.judge(&link, true)?;
    if life.keeps() {
        life.replay(&link)?;
    }
    figures.add(life);
    if first {
        let blind = judge::blind_spots(life.history());
        if !blind.is_empty() {
            return Err(blind.into_iter().map(|what| format!("the judge does not see {what}")).collect());
        }
        println!("crash: the judge sees each of {} ways to spoil a history", judge::spoils());
    }
    life.end(&link)
}

/// Starts the system, killing it now and then before it serves.
fn begin(life: &mut Life, dice: &mut Dice, figures: &mut Figures, kills: u64) -> Result<Link, Vec<String>> {
    loop {
        let link = life.start();
        let clean = life.is_clean();
        // Most starts follow a kill; those that do not, and those that make the file, are struck more often.
        let odds = match (clean, life.is_there()) {
            (_, false) => 4,
            (true, true) => 2,
            (false, true) => 1,
        };
        let strikes = dice.below(5) < odds && figures.kills() < kills;
        if !strikes {
            life.began(&link)?;
            return Ok(link);
        }
        // A start takes longer where there is more to recover; the instants fill the time that the last one took.
        sleep(life.start_took().mul_f64(dice.below(1_000) as f64 / 900.0));
        let ready = link.is_ready();
        let killed = link.kill();
        life.struck();
        match ready {
            Some(Answer::Failed(error)) => return Err(vec![format!("it does not start: {error}")]),
            _ if !killed => return Err(vec!["it ended by itself while it was started".to_owned()]),
            // It served already, at rest but for what subscribers had to catch up with.
            Some(_) => figures.load += 1,
            None if clean => figures.start += 1,
            None => figures.recovery += 1,
        }
    }
}

/// Whether an answer came that is not the end.
pub(crate) fn value(heard: Heard) -> Result<serde_json::Value, Vec<String>> {
    match heard {
        Heard::Answer(Answer::Done(value)) => Ok(value),
        Heard::Answer(other) => Err(vec![format!("the system answers {other:?}")]),
        Heard::CutOff => Err(vec!["the system ended by itself".to_owned()]),
    }
}
