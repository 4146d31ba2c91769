//! Programs of others: where they are installed, and how one is started and stopped.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Where this folder's own scripts lie.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counterparts").join(name)
}

/// A program that the setup installed, by its path below `target/counterparts/`.
pub(crate) fn installed(path: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/counterparts").join(path);
    assert!(program.exists(), "{} is not there: run tests/counterparts/setup first", program.display());
    program
}

/// The Python of the virtual environment.
pub(crate) fn python() -> Command {
    Command::new(installed("venv/bin/python"))
}

/// A program that runs until it is dropped. It is stopped by its own handle, and its end is awaited.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Starts it. Its complaints go where the test's go.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The next line that it prints, without its end. It fails if the program ended before.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the program ended: {:?}", self.child.try_wait());
        line.trim_end().to_owned()
    }

    /// Kills it (SIGKILL) and awaits its end.
    pub(crate) fn kill(&mut self) {
        // Whoever has ended by itself needs no more than that its end is taken note of.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
