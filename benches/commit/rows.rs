//! Rows: what one commit left in a store, to be written again under other keys, and the bare loop that writes it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use measure::Failure;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use tokio::sync::{mpsc, oneshot};

type Content = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// The table of signals, whose keys are numbers in order, and the table of what is stored once a transaction.
const LOG: &str = "signal_log";
const META: &str = "meta";

const fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    table: String,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// What one commit wrote.
#[derive(Clone, Debug)]
pub struct Rows {
    each: Vec<Row>,
    once: Vec<Row>,
    /// The parts of keys that differ from commit to commit.
    names: Vec<Vec<u8>>,
}

/// Everything that a closed store holds.
pub fn content(path: &Path) -> Result<Content, Failure> {
    let (database, mut content) = (Database::open(path)?, Content::new());
    let snapshot = database.begin_read()?;
    for found in snapshot.list_tables()? {
        for row in snapshot.open_table(table(found.name()))?.iter()? {
            let (key, value) = row?;
            content.insert((found.name().to_owned(), key.value().to_vec()), value.value().to_vec());
        }
    }
    Ok(content)
}

impl Rows {
    /// What one commit made of `before`. Every name must be in a key.
    pub fn between(before: &Content, after: Content, names: Vec<Vec<u8>>) -> Result<Self, Failure> {
        let changed = after.into_iter().filter(|(place, value)| before.get(place) != Some(value));
        let rows: Vec<_> = changed.map(|((table, key), value)| Row { table, key, value }).collect();
        let is_there = |name: &Vec<u8>| rows.iter().any(|row| place(&row.key, name).is_some());
        if let Some(absent) = names.iter().find(|name| !is_there(name)) {
            return Err(format!("no key holds {absent:?}").into());
        }
        let (once, each) = rows.into_iter().partition(|row| row.table == META);
        Ok(Self { each, once, names })
    }

    /// How many rows a commit writes, and the bytes of their keys and values.
    pub fn size(&self) -> (usize, usize) {
        (self.each.len(), self.each.iter().map(|row| row.key.len() + row.value.len()).sum())
    }

    /// The same under other names, given in the order of the first ones.
    fn renewed(&self, names: &[Vec<u8>]) -> Vec<Row> {
        let mut rows = self.each.clone();
        for row in &mut rows {
            for (old, new) in self.names.iter().zip(names) {
                let found = place(&row.key, old).and_then(|start| row.key.get_mut(start..start + new.len()));
                if let Some(part) = found {
                    part.copy_from_slice(new);
                }
            }
        }
        rows
    }
}

fn place(key: &[u8], name: &[u8]) -> Option<usize> {
    key.windows(name.len()).position(|window| window == name)
}

/// A bare store that is written as storage writes: durably in two phases, with quick repair.
#[derive(Debug)]
pub struct Bare {
    database: Database,
    rows: Rows,
    /// The place of the next signal, far behind those that are there.
    next: AtomicU64,
    /// Held by whoever writes.
    turn: Mutex<()>,
}

impl Bare {
    /// Opens a store of its own.
    pub fn open(path: &Path, rows: Rows) -> Result<Self, Failure> {
        let cache = majordomo::EngineSettings::default().cache_bytes;
        let database = Database::builder().set_cache_size(cache).open(path)?;
        Ok(Self { database, rows, next: AtomicU64::new(1 << 40), turn: Mutex::new(()) })
    }

    /// The rows of one more commit.
    pub fn renewed(&self, names: &[Vec<u8>]) -> Vec<Row> {
        self.rows.renewed(names)
    }

    /// Writes the rows of so many commits in one transaction.
    pub fn commit(&self, group: &[Vec<Row>]) -> Result<(), Failure> {
        let _turn = self.turn.lock();
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        {
            let mut tables = BTreeMap::new();
            for row in group.iter().flatten().chain(&self.rows.once) {
                if !tables.contains_key(row.table.as_str()) {
                    tables.insert(row.table.as_str(), transaction.open_table(table(&row.table))?);
                }
                let Some(table) = tables.get_mut(row.table.as_str()) else { continue };
                if row.table == LOG {
                    let place = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
                    table.insert(place.as_slice(), row.value.as_slice())?;
                } else {
                    table.insert(row.key.as_slice(), row.value.as_slice())?;
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

/// Rows on their way to the loop, and who waits for them.
type Waiting = (Vec<Row>, oneshot::Sender<()>);

/// The loop that commits all that waits in one transaction.
#[derive(Clone, Debug)]
pub struct Loop {
    bare: std::sync::Arc<Bare>,
    queue: mpsc::Sender<Waiting>,
}

impl Loop {
    /// Starts it; it ends with the last clone.
    pub fn start(bare: Bare) -> Self {
        let (queue, mut inbox) = mpsc::channel::<Waiting>(8_192);
        let bare = std::sync::Arc::new(bare);
        let writer = std::sync::Arc::clone(&bare);
        tokio::spawn(async move {
            let mut group = Vec::new();
            while inbox.recv_many(&mut group, 1_024).await > 0 {
                let (rows, askers): (Vec<_>, Vec<_>) = group.drain(..).unzip();
                let writer = std::sync::Arc::clone(&writer);
                let written = tokio::task::spawn_blocking(move || writer.commit(&rows)).await;
                if matches!(written, Ok(Ok(()))) {
                    // Whoever does not wait any more is not told.
                    askers.into_iter().for_each(|asker| asker.send(()).unwrap_or_default());
                }
            }
        });
        Self { bare, queue }
    }

    /// Answers once the rows of one more commit are durable.
    pub async fn commit(&self, names: &[Vec<u8>]) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        self.queue.send((self.bare.renewed(names), answer)).await?;
        Ok(answered.await?)
    }
}
