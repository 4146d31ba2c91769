//! The comparison: rounds of ours and of each other in turns, the flood, and what they come to.

use std::cell::RefCell;
use std::path::Path;

use measure::pairs::{Ratio, alternate};
use measure::process::mebibytes;
use measure::report::{Figure, Report, folder};
use measure::{Failure, setting};

use crate::protocol::{Ask, Tally};
use crate::team::Team;

/// What ours is called.
pub const OURS: &str = "majordomo";
/// What the library's is called.
pub const LIBRARY: &str = "torii";
/// What the one that is written by hand is called, with rows of audit.
pub const AUDITED: &str = "by hand";
/// The same without them.
pub const BARE: &str = "by hand, no audit";
/// The one with them, without a bound on how many passwords are hashed at a time.
pub const UNBOUNDED: &str = "by hand, no bound";

/// What all are to hash with.
const COSTS: &str = "$argon2id$v=19$m=19456,t=2,p=1";

/// What has to be free for a flood of [`UNBOUNDED`]: a hash on each thread that tokio has for blocking, and a quarter more.
const MEMORY_OF_A_FLOOD: u64 = 512 * (24 << 20);

/// One kind of round.
struct Mode {
    name: &'static str,
    /// Whether it stores anything.
    serves: bool,
    ask: fn(f64, u64) -> Ask,
}

/// The hashes go last: what ours keeps for them is no part of its memory when it serves.
const MODES: [Mode; 4] = [
    Mode { name: "register", serves: true, ask: |seconds, _| Ask::Register { seconds } },
    Mode { name: "login", serves: true, ask: |seconds, draw| Ask::Login { seconds, wrong: false, draw } },
    Mode { name: "login, a tenth wrong", serves: true, ask: |seconds, draw| Ask::Login { seconds, wrong: true, draw } },
    Mode { name: "hash alone", serves: false, ask: |seconds, _| Ask::Hash { seconds } },
];

/// How long all of it is.
struct Terms {
    rounds: u64,
    seconds: f64,
    users: u64,
    flood: f64,
}

impl Terms {
    fn read() -> Result<Self, Failure> {
        Ok(Self {
            rounds: setting("ROUNDS", 5, 2)?,
            seconds: setting("SECONDS", 5, 1)? as f64,
            users: setting("USERS", 500, 20)?,
            flood: setting("FLOOD", 10, 2)? as f64,
        })
    }

    fn seed(&self, team: &mut Team) -> Result<(), Failure> {
        let costs = team.seed(self.users)?;
        if costs != COSTS {
            return Err(format!("{} hashes with {costs}, and not with {COSTS}", team.name).into());
        }
        Ok(())
    }
}

/// Compares all, prints and writes the report.
///
/// # Errors
/// A contestant is not installed, or failed.
pub fn run() -> Result<(), Failure> {
    let terms = Terms::read()?;
    let mut report = Report::new("peers");
    let figures = folder()?;
    let stores =
        tempfile::Builder::new().prefix("peers-").tempdir_in(figures.parent().ok_or("figures without a folder")?)?;
    let mut ours = Team::of_this_program(OURS, stores.path())?;
    let mut others = [AUDITED, BARE, LIBRARY]
        .map(|name| Team::of_this_program(name, stores.path()))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    terms.seed(&mut ours)?;
    for other in &mut others {
        terms.seed(other)?;
    }
    others.push(better_django(&terms, stores.path(), &mut report)?);
    for mode in &MODES {
        for other in &mut others {
            compare(&terms, mode, &mut ours, other, &mut report)?;
        }
    }
    drop((ours, others));
    flood(&terms, stores.path(), &mut report)?;
    report.finish()
}

/// Django in one process and in one a core, of which the one that signs in more users in a second stays.
fn better_django(terms: &Terms, stores: &Path, report: &mut Report) -> Result<Team, Failure> {
    let processes = std::thread::available_parallelism()?.get();
    let (mut threads, mut processes) = (Team::of_django(1, stores)?, Team::of_django(processes, stores)?);
    terms.seed(&mut threads)?;
    terms.seed(&mut processes)?;
    let ask = |draw| Ask::Login { seconds: terms.seconds, wrong: false, draw };
    let pairs = alternate(3, || rate(&mut processes, ask(1)), || rate(&mut threads, ask(1)))?;
    let ratio = Ratio::of(&pairs);
    report.add(Figure::ratio(format!("login, a second: {} / threads", processes.name), ratio));
    Ok(if ratio.value > 1.0 { processes } else { threads })
}

fn rate(team: &mut Team, ask: Ask) -> Result<f64, Failure> {
    Ok(team.perform(ask)?.rate())
}

/// Adds the ratios of one kind of round, of ours to another's.
fn compare(terms: &Terms, mode: &Mode, ours: &mut Team, other: &mut Team, report: &mut Report) -> Result<(), Failure> {
    if !mode.serves && other.name == BARE {
        return Ok(());
    }
    for team in [&mut *ours, &mut *other] {
        team.perform((mode.ask)(terms.seconds.min(1.0) / 2.0, 0))?;
    }
    let (our_tallies, their_tallies) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let round = |team: &mut Team, tallies: &RefCell<Vec<Tally>>| {
        let draw = tallies.borrow().len() as u64 + 1;
        let tally = team.perform((mode.ask)(terms.seconds, draw))?;
        tallies.borrow_mut().push(tally);
        Ok::<_, Failure>(tally.rate())
    };
    let pairs =
        alternate(usize::try_from(terms.rounds)?, || round(ours, &our_tallies), || round(other, &their_tallies))?;
    let (our_tallies, their_tallies) = (our_tallies.into_inner(), their_tallies.into_inner());
    let costs: Vec<_> =
        our_tallies.iter().zip(&their_tallies).map(|(ours, theirs)| (ours.cost(), theirs.cost())).collect();
    let (what, other) = (mode.name, &other.name);
    report.add(Figure::ratio(format!("{what}, a second: {OURS} / {other}"), Ratio::of(&pairs)));
    report.add(Figure::ratio(format!("{what}, processor: {OURS} / {other}"), Ratio::of(&costs)));
    for (name, tallies) in [(OURS, &our_tallies), (other.as_str(), &their_tallies)] {
        report.add(Figure::new(format!("{what}: {name}"), mean(tallies, Tally::rate), "/s"));
        if !mode.serves {
            continue;
        }
        report.add(Figure::new(
            format!("{what}, 99 of 100 within: {name}"),
            mean(tallies, |tally| tally.high * 1e3),
            "ms",
        ));
        let resident = mean(tallies, |tally| mebibytes(tally.resident));
        report.add(Figure::new(format!("{what}, memory after it: {name}"), resident, "MiB"));
    }
    Ok(())
}

/// The geometric mean of something of all rounds.
fn mean(tallies: &[Tally], value: impl Fn(&Tally) -> f64) -> f64 {
    let logarithms: f64 = tallies.iter().map(|tally| value(tally).ln()).sum();
    (logarithms / tallies.len() as f64).exp()
}

/// Three times as many users as can be served, on fresh stores, one contestant after the other.
fn flood(terms: &Terms, stores: &Path, report: &mut Report) -> Result<(), Failure> {
    let floods = stores.join("floods");
    let mut most: f64 = 0.0;
    let mut teams = Vec::new();
    for name in [OURS, AUDITED, UNBOUNDED] {
        if name == UNBOUNDED && available_memory()? < MEMORY_OF_A_FLOOD {
            println!("{name} is left out of the flood: it may need {:.0} MiB", mebibytes(MEMORY_OF_A_FLOOD));
            continue;
        }
        let mut team = Team::of_this_program(name, &floods)?;
        terms.seed(&mut team)?;
        most = most.max(rate(&mut team, Ask::Login { seconds: terms.seconds, wrong: false, draw: 1 })?);
        teams.push(team);
    }
    for team in &mut teams {
        let survived = team.perform(Ask::Flood { seconds: terms.flood, rate: 3.0 * most });
        let name = &team.name;
        let tally = match survived {
            Ok(tally) => tally,
            Err(error) if name == UNBOUNDED => {
                // What it takes depends on the allocator; the kernel may end it.
                println!("{name} did not live through the flood: {error}");
                continue;
            }
            Err(error) => return Err(error),
        };
        let offered = tally.good + tally.denied + tally.overloaded;
        report.add(Figure::new(format!("flood, offered: {name}"), offered as f64 / terms.flood, "/s"));
        let in_time = tally.in_time as f64 / terms.flood;
        report.add(Figure::new(format!("flood, signed in within {} s: {name}", Tally::IN_TIME), in_time, "/s"));
        report.add(Figure::new(format!("flood, signed in at all: {name}"), tally.good as f64 / tally.seconds, "/s"));
        report.add(Figure::new(format!("flood, turned away: {name}"), tally.overloaded as f64 / offered as f64, ""));
        report.add(Figure::new(format!("flood, 99 of 100 signed in within: {name}"), tally.high, "s"));
        report.add(Figure::new(format!("flood, memory at most: {name}"), mebibytes(tally.peak), "MiB"));
    }
    Ok(())
}

fn available_memory() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).ok_or("MemAvailable is missing")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}
