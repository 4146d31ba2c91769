//! The link: one child process, the questions that are under way to it, and its end.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::wire::{Answer, Ask, Question, Reply, Terms};

/// Names the folder that this very binary, run as a child, is to serve.
pub(crate) const CHILD_SERVES: &str = "MAJORDOMO_CRASH_CHILD_SERVES";
/// Tells the child its terms.
pub(crate) const CHILD_TERMS: &str = "MAJORDOMO_CRASH_CHILD_TERMS";
/// Longer than anything here takes on the slowest machine; whoever waits so long waits for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// What a question came to.
pub(crate) enum Heard {
    Answer(Answer),
    /// The child is gone, and nobody knows.
    CutOff,
}

/// A running child.
pub(crate) struct Link {
    child: Mutex<Child>,
    questions: Mutex<Option<ChildStdin>>,
    waiting: Arc<Waiting>,
    numbers: AtomicU64,
    /// Whether nothing more is to be asked for now.
    rests: AtomicBool,
    ready: Mutex<Receiver<Answer>>,
}

#[derive(Default)]
struct Waiting {
    /// `None` once the child is gone.
    callers: Mutex<Option<HashMap<u64, Sender<Answer>>>>,
    answered: AtomicU64,
    gone: AtomicBool,
}

impl Waiting {
    fn callers(&self) -> MutexGuard<'_, Option<HashMap<u64, Sender<Answer>>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Starts a child over a folder.
    pub(crate) fn start(folder: &Path, terms: Terms) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(CHILD_SERVES, folder)
            .env(CHILD_TERMS, serde_json::to_string(&terms).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (questions, answers) = (child.stdin.take(), child.stdout.take().unwrap());
        let (told, ready) = channel();
        let waiting = Arc::new(Waiting::default());
        *waiting.callers() = Some(HashMap::from([(0, told)]));
        let shared = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for line in BufReader::new(answers).lines() {
                // A line that was torn by the kill is no answer.
                let Ok(reply) = line.map_err(drop).and_then(|line| serde_json::from_str::<Reply>(&line).map_err(drop))
                else {
                    break;
                };
                shared.answered.fetch_add(1, Ordering::Relaxed);
                let caller = shared.callers().as_mut().and_then(|callers| callers.remove(&reply.number));
                // Whoever asked may have given up.
                let _ = caller.map(|caller| caller.send(reply.answer));
            }
            shared.gone.store(true, Ordering::SeqCst);
            shared.callers().take();
        });
        let (child, questions, ready) = (Mutex::new(child), Mutex::new(questions), Mutex::new(ready));
        Self { child, questions, waiting, numbers: AtomicU64::new(1), rests: AtomicBool::new(false), ready }
    }

    /// Waits until the child serves.
    pub(crate) fn ready(&self) -> Heard {
        heard(&self.first(), "a start")
    }

    /// Whether the child serves by now, or has told why it does not.
    pub(crate) fn is_ready(&self) -> Option<Answer> {
        self.first().try_recv().ok()
    }

    fn first(&self) -> MutexGuard<'_, Receiver<Answer>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ask(&self, ask: Ask) -> Heard {
        let what = format!("{ask:?}");
        self.tell(ask).map_or(Heard::CutOff, |answer| heard(&answer, &what))
    }

    /// Asks without waiting; `None` if the child is gone.
    pub(crate) fn tell(&self, ask: Ask) -> Option<Receiver<Answer>> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (told, answer) = channel();
        self.waiting.callers().as_mut()?.insert(number, told);
        let line = serde_json::to_string(&Question { number, ask }).unwrap();
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.as_mut()?.write_all(format!("{line}\n").as_bytes()).ok()?;
        Some(answer)
    }

    /// How many answers came so far.
    pub(crate) fn answered(&self) -> u64 {
        self.waiting.answered.load(Ordering::Relaxed)
    }

    /// Asks the workers to pause, each once it is answered.
    pub(crate) fn rest(&self) {
        self.rests.store(true, Ordering::SeqCst);
    }

    pub(crate) fn rests(&self) -> bool {
        self.rests.load(Ordering::SeqCst)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.waiting.gone.load(Ordering::SeqCst)
    }

    /// Kills the child, and answers whether that is what ended it.
    pub(crate) fn kill(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody who has ended, and was not waited for, is not killed: their number is still theirs.
        child.kill().unwrap();
        child.wait().unwrap().signal() == Some(9)
    }

    /// Waits for a child that ends by itself, and answers the signal that ended it, if one did.
    pub(crate) fn ended_by(&self) -> Option<i32> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).wait().unwrap().signal()
    }

    /// Waits for a child that was asked to shut down.
    pub(crate) fn wait(&self) -> bool {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).wait().unwrap().success()
    }
}

/// No child outlives its link.
impl Drop for Link {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn heard(answer: &Receiver<Answer>, what: &str) -> Heard {
    match answer.recv_timeout(PATIENCE) {
        Ok(answer) => Heard::Answer(answer),
        Err(RecvTimeoutError::Disconnected) => Heard::CutOff,
        Err(RecvTimeoutError::Timeout) => panic!("no answer to {what} within {PATIENCE:?}"),
    }
}
