//! The names of a simulated disk: as a process sees them, and all that a power cut may leave of them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use super::content::{Chooser, Content};

/// A file, known by its address. It has one name at most.
pub(super) type Inode = Arc<Mutex<Content>>;

/// Names of files with their folders.
type Map = BTreeMap<String, Inode>;

/// All names of a disk.
#[derive(Default)]
pub(super) struct Names {
    now: Map,
    durable: Map,
    /// In order. Each concerns one folder: that of its name.
    unsynced: Vec<Operation>,
}

/// An unsynced change of a folder.
struct Operation {
    file: Inode,
    /// Where the change was made.
    dir: String,
    /// The file's name from now on; `None` where it was removed.
    name: Option<String>,
}

impl Operation {
    fn apply(&self, names: &mut Map) {
        names.retain(|_, file| !Arc::ptr_eq(file, &self.file));
        if let Some(name) = &self.name {
            names.insert(name.clone(), self.file.clone());
        }
    }
}

/// The folder of a name.
pub(super) fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl Names {
    /// Names that are durable.
    pub fn durable(files: Map) -> Names {
        Names { now: files.clone(), durable: files, unsynced: Vec::new() }
    }

    pub fn get(&self, name: &str) -> io::Result<&Inode> {
        self.now.get(name).ok_or_else(|| missing(name))
    }

    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.now.keys()
    }

    /// Names of the files in a folder, without it. What lies in folders within it is passed over as a whole.
    pub fn in_folder(&self, dir: &str) -> Vec<String> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let mut found = Vec::new();
        let mut from = prefix.clone();
        'folders: loop {
            for (name, _) in self.now.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded)) {
                let Some(inner) = name.strip_prefix(&prefix) else { break 'folders };
                match inner.split_once('/') {
                    None => found.push(inner.to_string()),
                    Some((folder, _)) => {
                        // '0' is what follows '/'.
                        from = format!("{prefix}{folder}0");
                        continue 'folders;
                    }
                }
            }
            break;
        }
        found
    }

    /// Puts a file under a name, durably, in the place of what was there.
    pub fn put(&mut self, name: &str, file: Inode) {
        self.now.insert(name.to_string(), file.clone());
        self.durable.insert(name.to_string(), file);
    }

    fn change(&mut self, file: Inode, dir: &str, name: Option<&str>) {
        self.unsynced.push(Operation { file, dir: dir.to_string(), name: name.map(String::from) });
    }

    pub fn create(&mut self, name: &str) -> io::Result<Inode> {
        if self.now.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("there is a file {name}")));
        }
        let file = Inode::default();
        self.now.insert(name.to_string(), file.clone());
        self.change(file.clone(), folder(name), Some(name));
        Ok(file)
    }

    pub fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        if folder(from) != folder(to) {
            let what = format!("{from} and {to} are in different folders, which no caller needs");
            return Err(io::Error::new(io::ErrorKind::CrossesDevices, what));
        }
        let file = self.now.remove(from).ok_or_else(|| missing(from))?;
        self.now.insert(to.to_string(), file.clone());
        self.change(file, folder(to), Some(to));
        Ok(())
    }

    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        let file = self.now.remove(name).ok_or_else(|| missing(name))?;
        self.change(file, folder(name), None);
        Ok(())
    }

    /// Makes the changes of a folder durable.
    pub fn sync(&mut self, dir: &str) {
        let durable = &mut self.durable;
        self.unsynced.retain(|operation| {
            let synced = operation.dir == dir;
            if synced {
                operation.apply(durable);
            }
            !synced
        });
    }

    /// The names that a power cut leaves.
    pub fn cut(&self, choose: &mut Chooser<'_>) -> Map {
        let mut names = self.durable.clone();
        for operation in &self.unsynced {
            if choose(2) == 1 {
                operation.apply(&mut names);
            }
        }
        names
    }
}
