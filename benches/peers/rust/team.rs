//! Teams: the processes of a contestant, as who compares them holds them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use measure::Failure;

use crate::contestant::callers;
use crate::protocol::{Ask, Reply, Tally};

/// How long a process may take to open, to close, and beyond the span that it was given.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a program prints, line by line, and its end.
struct Member {
    process: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Member {
    fn start(command: &mut Command) -> Result<(Self, String), Failure> {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = started.map_err(|error| format!("{command:?}: {error}; benches/peers/setup installs it"))?;
        let orders = process.stdin.take();
        let output = process.stdout.take().ok_or("a process without output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut member = Self { process, orders, lines };
        match member.hear(PATIENCE)? {
            Reply::Ready(name) => Ok((member, name)),
            other => Err(format!("instead of being ready it said {other:?}").into()),
        }
    }

    fn tell(&mut self, ask: &Ask) -> Result<(), Failure> {
        let orders = self.orders.as_mut().ok_or("the process was closed")?;
        Ok(writeln!(orders, "{}", serde_json::to_string(ask)?)?)
    }

    fn hear(&mut self, patience: Duration) -> Result<Reply, Failure> {
        let line = self.lines.recv_timeout(patience).map_err(|error| format!("a contestant said nothing: {error}"))?;
        match serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))? {
            Reply::Failure(failure) => Err(failure.into()),
            reply => Ok(reply),
        }
    }
}

impl Drop for Member {
    /// It ends when there is nothing more to read; one that does not is killed.
    fn drop(&mut self) {
        self.orders = None;
        while !matches!(self.lines.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected)) {
            if self.process.kill().is_err() {
                break;
            }
        }
        let _ = self.process.wait();
    }
}

/// A contestant: one process, or several over one file.
pub struct Team {
    /// What it is called in the report.
    pub name: String,
    members: Vec<Member>,
}

impl Team {
    /// Has this program be a contestant, over a folder of its own below `folder`.
    ///
    /// # Errors
    /// It does not open.
    pub fn of_this_program(name: &str, folder: &Path) -> Result<Self, Failure> {
        let folder = new_folder(folder, name)?;
        let (member, versions) = Member::start(Command::new(std::env::current_exe()?).args(["be", name]).arg(folder))?;
        println!("{name} is {versions}");
        Ok(Self { name: name.to_owned(), members: vec![member] })
    }

    /// Has Django be a contestant, in so many processes.
    ///
    /// # Errors
    /// It is not installed, or does not open.
    pub fn of_django(processes: usize, folder: &Path) -> Result<Self, Failure> {
        let name = match processes {
            1 => "Django, threads".to_owned(),
            many => format!("Django, {many} processes"),
        };
        let folder = new_folder(folder, &format!("django-{processes}"))?;
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = here.join("../../../target/peers/venv/bin/python");
        let threads = callers()?.div_ceil(processes);
        let mut members = Vec::new();
        for index in 0..processes {
            let numbers = [index, processes, threads].map(|number| number.to_string());
            let mut command = Command::new(&python);
            command.arg("-B").arg(here.join("../python/contestant.py")).arg(&folder).args(numbers);
            let (member, versions) = Member::start(&mut command)?;
            if index == 0 {
                println!("{name} is {versions}");
            }
            members.push(member);
        }
        Ok(Self { name, members })
    }

    /// Registers the first users, and returns the costs of a hash as they are stored.
    ///
    /// # Errors
    /// One could not be registered.
    pub fn seed(&mut self, users: u64) -> Result<String, Failure> {
        let mut costs = String::new();
        for reply in self.ask(Ask::Seed { users }, PATIENCE + Duration::from_secs(users))? {
            let Reply::Seeded(stored) = reply else { return Err(format!("{reply:?} is no seed").into()) };
            costs = stored;
        }
        Ok(costs)
    }

    /// Has all processes do something at the same time, and returns what they did together.
    ///
    /// # Errors
    /// A request failed, or took far too long.
    pub fn perform(&mut self, ask: Ask) -> Result<Tally, Failure> {
        let span = match ask {
            Ask::Seed { .. } => return Err("a seed has no tally".into()),
            Ask::Hash { seconds } | Ask::Register { seconds } | Ask::Login { seconds, .. } => seconds,
            Ask::Flood { seconds, .. } => 10.0 * seconds,
        };
        let mut together = Tally::default();
        for reply in self.ask(ask, PATIENCE + Duration::from_secs_f64(span))? {
            let Reply::Tally(tally) = reply else { return Err(format!("{reply:?} is no tally").into()) };
            together = together.beside(tally);
        }
        Ok(together)
    }

    fn ask(&mut self, ask: Ask, patience: Duration) -> Result<Vec<Reply>, Failure> {
        for member in &mut self.members {
            member.tell(&ask)?;
        }
        let name = &self.name;
        let replies = self.members.iter_mut().map(|member| member.hear(patience));
        replies.collect::<Result<_, _>>().map_err(|failure| format!("{name}: {failure}").into())
    }
}

fn new_folder(parent: &Path, name: &str) -> Result<PathBuf, Failure> {
    let folder = parent.join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
