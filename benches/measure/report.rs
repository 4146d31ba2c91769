//! The report: one table a benchmark, printed for readers and written as JSON for programs.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Failure;
use crate::pairs::Ratio;

/// What a figure ought to be.
#[derive(Clone, Copy, Debug)]
enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    interval: Option<(f64, f64)>,
    aim: Option<Aim>,
}

impl Figure {
    /// A figure in a unit; `""` for a count.
    #[must_use]
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, interval: None, aim: None }
    }

    /// A ratio of pairs, with its interval.
    #[must_use]
    pub fn ratio(what: impl Into<String>, ratio: Ratio) -> Self {
        Self { interval: Some(ratio.interval), ..Self::new(what, ratio.value, "x") }
    }

    /// It ought to be this or more.
    #[must_use]
    pub const fn at_least(mut self, aim: f64) -> Self {
        self.aim = Some(Aim::AtLeast(aim));
        self
    }

    /// It ought to be this or less.
    #[must_use]
    pub const fn at_most(mut self, aim: f64) -> Self {
        self.aim = Some(Aim::AtMost(aim));
        self
    }

    fn is_met(&self) -> Option<bool> {
        Some(match self.aim? {
            Aim::AtLeast(aim) => self.value >= aim,
            Aim::AtMost(aim) => self.value <= aim,
        })
    }

    fn line(&self) -> String {
        let interval = self.interval.map_or(String::new(), |(low, high)| format!("[{}, {}]", short(low), short(high)));
        let aim = match self.aim {
            Some(Aim::AtLeast(aim)) => format!(">= {}", short(aim)),
            Some(Aim::AtMost(aim)) => format!("<= {}", short(aim)),
            None => String::new(),
        };
        let verdict = match self.is_met() {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "",
        };
        let (what, value, unit) = (&self.what, short(self.value), self.unit);
        format!("{what:<66} {value:>10} {unit:<6} {interval:<18} {aim:<10} {verdict}").trim_end().to_owned()
    }

    fn to_json(&self) -> Value {
        let aim = self.aim.map(|aim| match aim {
            Aim::AtLeast(aim) => json!({ "at_least": aim }),
            Aim::AtMost(aim) => json!({ "at_most": aim }),
        });
        json!({
            "what": self.what, "value": self.value, "unit": self.unit, "interval": self.interval, "aim": aim,
            "met": self.is_met(),
        })
    }
}

/// Four significant digits, or thousands in groups.
#[must_use]
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 10_000.0 {
        let digits = format!("{value:.0}");
        let mut text = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) && !text.ends_with('-') {
                text.push(',');
            }
            text.push(digit);
        }
        text
    } else if size >= 1_000.0 {
        format!("{value:.0}")
    } else if size >= 100.0 {
        format!("{value:.1}")
    } else if size >= 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// The figures of a benchmark.
#[derive(Debug)]
pub struct Report {
    bench: &'static str,
    figures: Vec<Figure>,
}

impl Report {
    /// An empty one, of the benchmark with this name.
    #[must_use]
    pub const fn new(bench: &'static str) -> Self {
        Self { bench, figures: Vec::new() }
    }

    /// Adds a figure, and prints it at once: a run that is cut off has told what it knew.
    pub fn add(&mut self, figure: Figure) {
        println!("{}", figure.line());
        self.figures.push(figure);
    }

    /// Writes the figures to `figures/<bench>.json` in the folder that cargo builds into.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> Result<(), Failure> {
        let figures: Vec<_> = self.figures.iter().map(Figure::to_json).collect();
        let processors = std::thread::available_parallelism()?.get();
        let text =
            json!({ "bench": self.bench, "processors": processors, "quick": crate::is_quick(), "figures": figures });
        let path = folder()?.join(format!("{}.json", self.bench));
        std::fs::write(&path, serde_json::to_string_pretty(&text)?)?;
        Ok(())
    }
}

/// The folder of figures, made where it is missing: `figures` in the folder that cargo builds into.
///
/// # Errors
/// It cannot be made.
pub fn folder() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    // target/<profile>/deps/<program>
    let target = program.ancestors().nth(3).ok_or("the program lies in no build folder")?;
    let folder = target.join("figures");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
