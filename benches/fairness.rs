//! Fairness: what is left of legitimate logins while nineteen wrong ones come for each of them, beside the same logins alone.
//!
//! `cargo bench --bench fairness`. `SECONDS=n` is how long each load is offered (8), `ROUNDS=n` how often (4), `SOURCES=n` from
//! how many sources accounts are stuffed (200). Legitimate logins come at three fifths of what a closed loop of logins
//! reaches just before, at the same random instants with the attack and without it, in turns. Latency is taken from the
//! instant at which a login was meant to begin.

#![allow(clippy::print_stdout, reason = "it reports")]

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use majordomo::{
    Accounts, Answer, Authenticate, AuthenticateReason, Command, Config, Context, DeviceToken, Error, Password,
};
use measure::arrivals::{Arrival, Draws, closed_loop, open_loop};
use measure::pairs::{Ratio, percentile, sorted};
use measure::report::{Figure, Report};
use measure::{Failure, is_quick, report, setting, world};
use tokio::task::JoinSet;

/// How many users there are, of whom the first sign in, and the others are guessed at.
const USERS: u64 = 5_000;
const LEGITIMATE: u64 = 200;
/// How much of the capacity legitimate logins take.
const LOAD: f64 = 0.6;
/// How many wrong logins come for each of them: 95 % of all.
const WRONG: f64 = 19.0;
/// How many callers the closed loop has: fewer than the line has places, on a slow machine too.
const CALLERS: usize = 8;
/// How long an attack has gone on when the legitimate logins come, unless its beginning is what is looked at.
const LEAD: Duration = Duration::from_secs(4);
/// A source that is refused so often in a row has spent its budgets.
const SPENT: u32 = 5;

/// How the attack comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// 20 sources guess at five accounts.
    FewAccounts,
    /// Many sources that were never seen before try a password at each of many accounts.
    StuffingBegins,
    /// The same go on, with most of their budgets left.
    StuffingGoesOn,
    /// The same, when their budgets are spent.
    StuffingIsSpent,
    /// Each attempt is from a network of its own: no budget is ever spent. So are the owners' logins.
    Botnet,
    /// The same, but the owners sign in on devices that are known.
    BotnetAndDevices,
}

const SHAPES: [Shape; 6] = [
    Shape::FewAccounts,
    Shape::Botnet,
    Shape::BotnetAndDevices,
    Shape::StuffingBegins,
    Shape::StuffingGoesOn,
    Shape::StuffingIsSpent,
];

impl Shape {
    const fn name(self) -> &'static str {
        match self {
            Self::FewAccounts => "(a) 20 sources, 5 accounts",
            Self::StuffingBegins => "(b1) stuffing, new sources",
            Self::StuffingGoesOn => "(b2) stuffing, sources that failed",
            Self::StuffingIsSpent => "(b3) stuffing, spent sources",
            Self::Botnet => "(c1) botnet, no device tokens",
            Self::BotnetAndDevices => "(c2) botnet, device tokens",
        }
    }

    /// How many sources there are whose budgets are spent beforehand.
    const fn spent_sources(self, stuffing: u64) -> u64 {
        match self {
            Self::FewAccounts => 20,
            Self::StuffingIsSpent => stuffing,
            _ => 0,
        }
    }

    const fn lead(self) -> Duration {
        if matches!(self, Self::StuffingBegins) { Duration::ZERO } else { LEAD }
    }

    /// A wrong login: where it comes from and whom it is about follows from two numbers, and from how many sources stuff.
    fn guess(self, stuffing: u64, round: u64, (source, victim): (u64, u64)) -> Command<Authenticate> {
        let victims = if self == Self::FewAccounts { 5 } else { USERS - LEGITIMATE };
        let address = match self {
            Self::FewAccounts => four([203, 0], source % 20),
            Self::StuffingBegins => four([198, 18], source % stuffing + stuffing * round),
            Self::StuffingGoesOn => four([198, 19], source % stuffing + stuffing * round),
            Self::StuffingIsSpent => four([198, 51], source % stuffing),
            Self::Botnet | Self::BotnetAndDevices => six(source),
        };
        let identifier = world::username(LEGITIMATE + victim % victims);
        let message = Authenticate { identifier, password: Password::new("an altogether different phrase") };
        Command::new(message).context(Context::new().client_ip(address))
    }
}

fn four(network: [u8; 2], number: u64) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    let [first, second] = network;
    IpAddr::from([first, second, high, low])
}

/// An address in a network of 48 bits of its own.
fn six(number: u64) -> IpAddr {
    let part = |shift: u32| u16::try_from((number >> shift) & 0xffff).unwrap_or_default();
    Ipv6Addr::new(0x2001, part(16), part(0), 0, 0, 0, 0, 1).into()
}

/// A legitimate login from the home of its user, on their device if one is given.
fn right(user: u64, device: Option<&DeviceToken>) -> Command<Authenticate> {
    let context = Context::new().client_ip(four([10, 0], user));
    let command = Command::new(world::login(user)).context(context);
    match device {
        Some(device) => command.device(device.clone()),
        None => command,
    }
}

/// What became of some logins.
#[derive(Clone, Debug, Default)]
struct Came {
    /// The time from the meant beginning to the answer of those that were compared, in milliseconds.
    took: Vec<f64>,
    throttled: usize,
    overloaded: usize,
    seconds: f64,
}

impl Came {
    fn of(
        arrivals: &[Arrival<Answer<Authenticate>>],
        is_compared: fn(&Answer<Authenticate>) -> bool,
    ) -> Result<Self, Failure> {
        let mut came = Self::default();
        for arrival in arrivals {
            match &arrival.outcome {
                answer if is_compared(answer) => came.took.push(arrival.seconds * 1e3),
                Err(Error::Throttled { .. }) => came.throttled += 1,
                Err(Error::Overloaded) => came.overloaded += 1,
                other => return Err(format!("a login came to {:?}", other.as_ref().err()).into()),
            }
        }
        Ok(came)
    }

    fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.throttled += other.throttled;
        self.overloaded += other.overloaded;
        self.seconds += other.seconds;
    }

    fn goodput(&self) -> f64 {
        self.took.len() as f64 / self.seconds
    }

    fn share(&self, count: usize) -> f64 {
        count as f64 / (self.took.len() + self.throttled + self.overloaded).max(1) as f64
    }
}

struct World {
    accounts: Accounts,
    devices: Arc<Vec<DeviceToken>>,
    /// How many sources stuff accounts.
    stuffing: u64,
    span: Duration,
}

impl World {
    /// What a closed loop of logins reaches.
    async fn capacity(&self) -> Result<f64, Failure> {
        let accounts = self.accounts.clone();
        let log_in = move |caller: usize, turn| {
            let accounts = accounts.clone();
            let user = Draws::new(caller as u64 + turn * 64).below(LEGITIMATE);
            async move { Ok(accounts.authenticate(right(user, None)).await.map(drop)?) }
        };
        closed_loop(CALLERS, self.span / 2, log_in).await
    }

    async fn legitimate(&self, shape: Shape, rate: f64, seed: u64) -> Result<Came, Failure> {
        let begun = Instant::now();
        let arrivals = open_loop(rate, self.span, seed, |number| {
            let user = Draws::new(number ^ (seed << 32)).below(LEGITIMATE);
            let device = usize::try_from(user).ok().and_then(|user| self.devices.get(user));
            let command = right(user, device.filter(|_| shape == Shape::BotnetAndDevices));
            let accounts = self.accounts.clone();
            async move { accounts.authenticate(command).await }
        });
        let came = Came::of(&arrivals.await, Result::is_ok)?;
        Ok(Came { seconds: begun.elapsed().as_secs_f64(), ..came })
    }

    async fn attacked(&self, shape: Shape, rate: f64, seed: u64) -> Result<(Came, Came), Failure> {
        let (accounts, stuffing, span) = (self.accounts.clone(), self.stuffing, shape.lead() + self.span);
        let attack = tokio::spawn(async move {
            let arrivals = open_loop(rate * WRONG, span, !seed, |number| {
                let mut draws = Draws::new(number ^ (seed << 32));
                let command = shape.guess(stuffing, seed, (draws.next(), draws.next()));
                let accounts = accounts.clone();
                async move { accounts.authenticate(command).await }
            });
            arrivals.await
        });
        tokio::time::sleep(shape.lead()).await;
        let legitimate = self.legitimate(shape, rate, seed).await?;
        let is_compared = |answer: &Answer<Authenticate>| {
            matches!(answer, Err(Error::Refused(AuthenticateReason::InvalidCredentials)))
        };
        Ok((legitimate, Came::of(&attack.await?, is_compared)?))
    }

    /// Lets the sources of an attack spend their budgets.
    async fn spend(&self, shape: Shape) -> Result<(), Failure> {
        let mut all = JoinSet::new();
        for source in 0..shape.spent_sources(self.stuffing) {
            let (accounts, stuffing) = (self.accounts.clone(), self.stuffing);
            all.spawn(async move {
                let (mut in_a_row, mut victim) = (0, source);
                while in_a_row < SPENT {
                    match accounts.authenticate(shape.guess(stuffing, 0, (source, victim))).await {
                        Err(Error::Throttled { .. }) => in_a_row += 1,
                        Err(Error::Overloaded) => tokio::time::sleep(Duration::from_millis(50)).await,
                        _ => in_a_row = 0,
                    }
                    victim += 1;
                }
            });
        }
        while let Some(over) = all.join_next().await {
            over?;
        }
        Ok(())
    }
}

/// What a shape came to, in all rounds.
#[derive(Default)]
struct Row {
    pairs: Vec<(f64, f64)>,
    idle: Came,
    attacked: Came,
    attack: Came,
}

async fn measured(world: &World, shape: Shape) -> Result<Row, Failure> {
    let mut row = Row::default();
    if !is_quick() {
        world.spend(shape).await?;
    }
    for round in 0..setting("ROUNDS", 4, 1)? {
        let rate = world.capacity().await? * LOAD;
        let is_idle_first = round % 2 == 0;
        let before = if is_idle_first { Some(world.legitimate(shape, rate, round).await?) } else { None };
        let (attacked, attack) = world.attacked(shape, rate, round).await?;
        let idle = match before {
            Some(idle) => idle,
            None => world.legitimate(shape, rate, round).await?,
        };
        row.pairs.push((attacked.goodput(), idle.goodput()));
        row.idle.add(idle);
        row.attacked.add(attacked);
        row.attack.add(attack);
    }
    Ok(row)
}

fn tell(report: &mut Report, shape: Shape, row: Row) {
    let name = |what: &str| format!("{}: {what}", shape.name());
    let ratio = Figure::ratio(name("throughput / idle"), Ratio::of(&row.pairs));
    let has_aim =
        matches!(shape, Shape::FewAccounts | Shape::StuffingGoesOn | Shape::StuffingIsSpent | Shape::BotnetAndDevices);
    report.add(if has_aim { ratio.at_least(0.9) } else { ratio });
    let (share_refused, idle_rate) =
        (row.attacked.share(row.attacked.throttled + row.attacked.overloaded), row.idle.goodput());
    report.add(Figure::new(name("idle throughput"), idle_rate, "/s"));
    report.add(Figure::new(name("legitimate refused"), share_refused * 100.0, "%"));
    let refused_idle = row.idle.share(row.idle.throttled + row.idle.overloaded);
    report.add(Figure::new(name("legitimate refused, idle"), refused_idle * 100.0, "%"));
    for (what, count) in [("throttled", row.attack.throttled), ("overloaded", row.attack.overloaded)] {
        let what = name(&format!("attack {what}"));
        report.add(Figure::new(what, row.attack.share(count) * 100.0, "%"));
    }
    let (idle, attacked) = (sorted(row.idle.took), sorted(row.attacked.took));
    for (what, took) in [("idle", &idle), ("attacked", &attacked)] {
        report.add(Figure::new(name(&format!("{what}, p50")), percentile(took, 0.5), "ms"));
        report.add(Figure::new(name(&format!("{what}, p99")), percentile(took, 0.99), "ms"));
    }
    let slower = Figure::new(name("p99 / idle"), percentile(&attacked, 0.99) / percentile(&idle, 0.99), "x");
    report.add(if shape == Shape::BotnetAndDevices { slower.at_most(2.0) } else { slower });
}

async fn run() -> Result<(), Failure> {
    let mut report = Report::new("fairness");
    let config = Config::default();
    let folder = tempfile::tempdir_in(report::folder()?)?;
    let path = folder.path().join("accounts.redb");
    world::seed(&path, USERS, &config).await?;
    let accounts = world::open(&path, config).await?;
    let mut devices = Vec::new();
    for user in 0..LEGITIMATE {
        devices.push(accounts.authenticate(right(user, None)).await?.device);
    }
    let span = Duration::from_millis(setting("SECONDS", 8, 0)?.saturating_mul(1_000).max(500));
    let stuffing = setting("SOURCES", 200, 20)?.max(1);
    let world = World { accounts, devices: Arc::new(devices), stuffing, span };
    for shape in SHAPES {
        let row = measured(&world, shape).await?;
        tell(&mut report, shape, row);
    }
    if !world.accounts.shutdown().await {
        return Err("the system did not shut down".into());
    }
    report.finish()
}

fn main() -> Result<(), Failure> {
    if is_quick() {
        println!("only to show that it works");
    }
    tokio::runtime::Runtime::new()?.block_on(run())
}
