//! What survives the orchestrator: work of several steps that was begun. An embedded database, `STATE/journal.redb`.
//!
//! # Crash
//! An entry is durable before the first step it speaks of is taken, and goes after the last one. What is there at the start was interrupted, and
//! is gone on with or undone. That a domain was snapshotted for libvirt is not in here: the hold of the snapshot says it.

use super::trouble::Trouble;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const WORK: TableDefinition<u64, &[u8]> = TableDefinition::new("work");
/// By a domain's UUID, those of its snapshots that libvirt has and that wait for nobody.
const KNOWN: TableDefinition<u128, &[u8]> = TableDefinition::new("known");

/// One of libvirt's snapshots of a domain. Two may be begun within a second.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Known {
    /// When it was begun, in seconds since 1970.
    pub created: u64,
    /// Its name.
    pub name: String,
    /// Its memory image, if that was seen: `virsh snapshot-delete` removes it, and forgetting a snapshot does not.
    pub image: Option<PathBuf>,
}

impl Known {
    /// Whether it is this one.
    pub fn is(&self, created: u64, name: &str) -> bool {
        self.created == created && self.name == name
    }
}

/// Work that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The domain's name, for people.
    pub domain: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// When it was begun, in seconds since 1970.
    pub begun: u64,
    /// What it is.
    pub kind: Kind,
}

/// What work there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A snapshot of a domain's vDisks, for which its filesystems may be frozen. Interrupted, they are thawed.
    Snapshot {
        /// Its name.
        name: String,
        /// Whether filesystems are frozen.
        quiesce: bool,
    },
    /// A checkpoint that can't be: the domain goes on, and libvirt's snapshot and what there is of ours go. Interrupted, it is gone on with.
    Undo(Undo),
    /// A domain that goes back to a snapshot. Interrupted, it is gone on with.
    Revert(Revert),
    /// A new domain that begins as a snapshot. Interrupted, it is gone on with.
    Clone(Clone),
}

/// A checkpoint that can't be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undo {
    /// Its name.
    pub name: String,
    /// When libvirt began it, in seconds since 1970.
    pub created: u64,
    /// The vDisks.
    pub vdisks: Vec<String>,
    /// Why it can't be.
    pub why: String,
}

/// A domain that goes back to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revert {
    /// The snapshot.
    pub snapshot: String,
    /// The vDisks.
    pub vdisks: Vec<String>,
    /// What they are before is kept by this name.
    pub keep: Option<String>,
    /// The memory to go on with.
    pub memory: Option<PathBuf>,
    /// Whether it runs afterwards.
    pub start: bool,
    /// Whether it was switched off: if it is not off afterwards, somebody else has started it.
    pub off: bool,
    /// The vDisks that are reverted. When all are, the domain may run.
    pub done: Vec<String>,
}

/// A new domain that begins as a snapshot. Its identity is decided before anything is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Clone {
    /// The snapshot.
    pub snapshot: String,
    /// The new domain's name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// When it was begun, in seconds since 1970.
    pub begun: u64,
    /// Its description.
    pub xml: String,
    /// The vDisks, and what they are cloned to.
    pub vdisks: Vec<(String, String)>,
    /// Those of these that were made.
    pub made: Vec<String>,
    /// Whether it is started.
    pub start: bool,
}

/// The database.
#[derive(Debug)]
pub(crate) struct Journal {
    database: Database,
}

impl Journal {
    /// Opens it, in a directory that is there. One process at a time can.
    pub fn open(state: &Path) -> Result<Journal, Trouble> {
        let file = state.join("journal.redb");
        let failed = |error: redb::Error| match error {
            redb::Error::DatabaseAlreadyOpen => Trouble::Journal(format!(
                "another orchestrator has {} open: stop it, or give this one a directory of its own (--state DIR)",
                file.display()
            )),
            error => Trouble::Journal(format!("{}: {error}", file.display())),
        };
        let database = Database::create(&file).map_err(|error| failed(error.into()))?;
        let journal = Journal { database };
        journal.change(|_| Ok(())).map_err(failed)?;
        journal.change_known(|_| Ok(())).map_err(failed)?;
        Ok(journal)
    }

    /// Begins work: it is durable when this returns.
    pub fn begin(&self, work: &Work) -> Result<u64, Trouble> {
        let bytes =
            serde_json::to_vec(work).map_err(|error| Trouble::Journal(error.to_string()))?;
        let begun = self.change(|table| {
            let last = table.last()?.map_or(0, |(key, _)| key.value());
            table.insert(last + 1, bytes.as_slice())?;
            Ok(last + 1)
        });
        begun.map_err(Trouble::journal)
    }

    /// Notes how far it is.
    pub fn note(&self, number: u64, work: &Work) -> Result<(), Trouble> {
        let bytes =
            serde_json::to_vec(work).map_err(|error| Trouble::Journal(error.to_string()))?;
        let noted = self.change(|table| table.insert(number, bytes.as_slice()).map(drop));
        noted.map_err(Trouble::journal)
    }

    /// It is done, or given up.
    pub fn end(&self, number: u64) -> Result<(), Trouble> {
        self.change(|table| table.remove(number).map(drop))
            .map_err(Trouble::journal)
    }

    /// All work that was begun, oldest first. What can't be read is left out, and told.
    pub fn all(&self) -> Result<Vec<(u64, Work)>, Trouble> {
        let read = || -> Result<Vec<(u64, Work)>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = transaction.open_table(WORK)?;
            let mut all = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                match serde_json::from_slice(value.value()) {
                    Ok(work) => all.push((key.value(), work)),
                    Err(error) => log::error!(
                        "entry {} of the journal can't be read: {error}",
                        key.value()
                    ),
                }
            }
            Ok(all)
        };
        read().map_err(Trouble::journal)
    }

    /// What libvirt had when it was last looked at. Only what was there can have been deleted, and only what was not waits for its disks.
    pub fn known(&self) -> Result<HashMap<Uuid, HashSet<Known>>, Trouble> {
        let read = || -> Result<HashMap<Uuid, HashSet<Known>>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let table = transaction.open_table(KNOWN)?;
            let mut all = HashMap::new();
            for row in table.iter()? {
                let (key, value) = row?;
                let known = serde_json::from_slice(value.value()).unwrap_or_default();
                all.insert(Uuid::from_u128(key.value()), known);
            }
            Ok(all)
        };
        read().map_err(Trouble::journal)
    }

    /// The same of one domain.
    pub fn known_of(&self, domain: Uuid) -> Result<HashSet<Known>, Trouble> {
        let read = || -> Result<HashSet<Known>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let row = transaction.open_table(KNOWN)?.get(domain.as_u128())?;
            let known = row.map(|row| serde_json::from_slice(row.value()).unwrap_or_default());
            Ok(known.unwrap_or_default())
        };
        read().map_err(Trouble::journal)
    }

    /// Notes what libvirt has of a domain.
    pub fn know(&self, domain: Uuid, known: &HashSet<Known>) -> Result<(), Trouble> {
        let bytes =
            serde_json::to_vec(known).map_err(|error| Trouble::Journal(error.to_string()))?;
        let noted = self.change_known(|table| match known.is_empty() {
            true => table.remove(domain.as_u128()).map(drop),
            false => table.insert(domain.as_u128(), bytes.as_slice()).map(drop),
        });
        noted.map_err(Trouble::journal)
    }

    fn change_known(
        &self,
        act: impl FnOnce(&mut redb::Table<'_, u128, &'static [u8]>) -> Result<(), redb::StorageError>,
    ) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(KNOWN)?;
            act(&mut table)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn change<T>(
        &self,
        act: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>) -> Result<T, redb::StorageError>,
    ) -> Result<T, redb::Error> {
        let transaction = self.database.begin_write()?;
        let done = {
            let mut table = transaction.open_table(WORK)?;
            act(&mut table)?
        };
        transaction.commit()?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_begun_is_there_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let mut work = Work {
            domain: "web".into(),
            uuid: Uuid::from_u128(1),
            begun: 7,
            kind: Kind::Snapshot {
                name: "a".into(),
                quiesce: true,
            },
        };
        let (first, second) = (journal.begin(&work).unwrap(), journal.begin(&work).unwrap());
        journal.end(first).unwrap();
        work.begun = 8;
        journal.note(second, &work).unwrap();
        let taken = Journal::open(dir.path()).unwrap_err();
        assert!(
            taken.to_string().contains("another orchestrator"),
            "{taken}"
        );
        drop(journal);
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.all().unwrap(), [(second, work)]);
        let known = Known {
            created: 5,
            name: "a".into(),
            image: None,
        };
        let (one, known) = (Uuid::from_u128(1), HashSet::from([known]));
        journal.know(one, &known).unwrap();
        assert_eq!(journal.known_of(one).unwrap(), known);
        assert_eq!(journal.known().unwrap(), [(one, known)].into());
        journal.know(one, &HashSet::new()).unwrap();
        assert!(journal.known().unwrap().is_empty());
    }
}
