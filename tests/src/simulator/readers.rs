//! Readers beside the writer, as other processes have them: on the same disk, with failures of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use underbelly::disk::{Calls, Fault, FaultKind};
use underbelly::{Database, FaultyDisk, OpenError, Reader, SimulatedDisk};

use super::life::Life;
use super::meanwhile::Meanwhile;
use super::model::Model;
use super::{Trouble, check};

/// Most readers at a time.
const READERS: usize = 2;

/// A reader, and what it must show.
pub(super) struct Beside {
    disk: FaultyDisk<SimulatedDisk>,
    reader: Reader,
    model: Model,
}

impl Life {
    /// A reader comes, goes, or looks for what is new.
    pub(super) fn read(&mut self) -> Result<(), Trouble> {
        let choice = self.numbers.below(8);
        if self.readers.is_empty() || (choice < 2 && self.readers.len() < READERS) {
            return self.open_reader();
        }
        let number = self.numbers.below(self.readers.len() as u64) as usize;
        match choice {
            2 => drop(self.readers.swap_remove(number)),
            3 => {
                // What it shows now it shows as long as somebody holds on to it.
                let held =
                    self.readers.get(number).map(|found| (found.reader.snapshot(), found.model.clone()));
                self.held.extend(held);
            }
            _ => return self.refresh(number),
        }
        Ok(())
    }

    /// Opens a reader of what is on the disk now.
    fn open_reader(&mut self) -> Result<(), Trouble> {
        let disk = FaultyDisk::new(self.disk.inner().clone());
        disk.order(self.reader_fault());
        let before = self.durable;
        let is_overtaken = self.is_open() && self.numbers.below(4) == 0;
        let meanwhile = if is_overtaken { Some(self.overtake(&disk)?) } else { None };
        let opened = Database::open_read_only_with(Arc::new(disk.clone()), 0);
        let failed = disk.struck() > 0;
        disk.order(None);
        disk.watch(|_| Ok(()));
        meanwhile.map_or(Ok(()), |meanwhile| self.account(meanwhile))?;
        let reader = match opened {
            Ok(reader) => reader,
            Err(error) => {
                self.tell(|| format!("a reader cannot open: {error}"));
                return if failed || self.is_untold(&error) {
                    Ok(())
                } else {
                    Err(format!("a reader cannot open a sound disk: {error}").into())
                };
            }
        };
        self.figures.reads += 1;
        let seq = reader.seq();
        self.tell(|| format!("a reader opens at seq {seq}"));
        self.allow(seq)?;
        if self.durable == before {
            self.expect_all(seq)?;
        }
        let model = self.model_at(seq)?;
        check::snapshot(&reader.snapshot(), &model)?;
        if self.readers.len() < READERS {
            self.readers.push(Beside { disk, reader, model });
        }
        Ok(())
    }

    /// Between two calls of who opens a reader on this disk, or copies to it, the writer commits and makes checkpoints: what the reader was
    /// about to look at is replaced, or pinned.
    pub(super) fn overtake(&mut self, disk: &FaultyDisk<SimulatedDisk>) -> Result<Meanwhile, Trouble> {
        let (checkpoints, after) = (self.numbers.below(4), self.numbers.below(60));
        let (mut other, meanwhile) = self.other(checkpoints)?;
        let (calls, other) = (
            AtomicU64::new(0),
            Mutex::new(move || {
                for _ in 0..checkpoints {
                    other.commit();
                    other.checkpoint();
                }
            }),
        );
        disk.watch(move |_| {
            if calls.fetch_add(1, Ordering::Relaxed) == after {
                other.lock().unwrap_or_else(PoisonError::into_inner)();
            }
            Ok(())
        });
        Ok(meanwhile)
    }

    /// Lets a reader look for what is new.
    fn refresh(&mut self, number: usize) -> Result<(), Trouble> {
        let fault = self.reader_fault();
        let Some(found) = self.readers.get_mut(number) else { return Ok(()) };
        let before = found.reader.seq();
        found.disk.order(fault);
        let refreshed = found.reader.refresh();
        let failed = found.disk.struck() > 0;
        found.disk.order(None);
        let seq = found.reader.seq();
        self.figures.reads += 1;
        self.tell(|| format!("a reader goes from seq {before} to {seq}: {refreshed:?}"));
        match refreshed {
            Ok(told) if told != seq || seq < before => {
                return Err(format!("a reader went from seq {before} to {seq}, and says {told}").into());
            }
            Ok(_) => self.expect_all(seq)?,
            Err(error) if !failed && !self.is_untold(&error) => {
                return Err(format!("a reader cannot refresh from a sound disk: {error}").into());
            }
            Err(_) if seq != before => {
                return Err(format!("a reader failed to refresh and went from seq {before} to {seq}").into());
            }
            Err(_) => {}
        }
        self.allow(seq)?;
        let model = if seq == before { None } else { Some(self.model_at(seq)?) };
        let Some(found) = self.readers.get_mut(number) else { return Ok(()) };
        if let Some(model) = model {
            found.model = model;
        }
        self.told.read(&found.reader, seq)?;
        check::snapshot(&found.reader.snapshot(), &found.model)
    }

    /// Sometimes a read that fails, once.
    fn reader_fault(&mut self) -> Option<Fault> {
        let (after, is_failing) = (self.numbers.below(40), self.numbers.below(4) == 0);
        is_failing.then_some(Fault { calls: Calls::Reading, after, kind: FaultKind::Io, sticky: false })
    }

    /// Whether a reader may be shown transactions up to `seq`. What one was shown stays.
    fn allow(&mut self, seq: u64) -> Result<(), Trouble> {
        if self.is_open() && seq > self.durable {
            return Err(format!("a reader shows seq {seq}, and {} is durable", self.durable).into());
        }
        self.durable = self.durable.max(seq);
        Ok(())
    }

    /// What a reader or a copy shows that has looked a moment ago: all that is durable, where the writer could tell.
    pub(super) fn expect_all(&self, seq: u64) -> Result<(), Trouble> {
        if seq < self.durable && self.is_open() && self.is_sound {
            return Err(format!("who reads is shown seq {seq}, and {} is durable", self.durable).into());
        }
        Ok(())
    }

    /// Whether an error says that what the writer told readers was lost with the power, which its next opening mends.
    fn is_untold(&self, error: &OpenError) -> bool {
        !self.is_open() && error.to_string().contains("SHARED")
    }

    /// What all readers show is still what they showed.
    pub(super) fn check_readers(&self) -> Result<(), Trouble> {
        self.readers.iter().try_for_each(|beside| check::snapshot(&beside.reader.snapshot(), &beside.model))
    }

    /// A reader comes where a process ended, before the next one writes.
    pub(super) fn read_what_is_left(&mut self) -> Result<(), Trouble> {
        if self.numbers.below(6) == 0 { self.open_reader() } else { Ok(()) }
    }

    /// All readers that outlived the writer look for what the next one made of it.
    pub(super) fn refresh_all(&mut self) -> Result<(), Trouble> {
        (0..self.readers.len()).try_for_each(|number| self.refresh(number))
    }
}
