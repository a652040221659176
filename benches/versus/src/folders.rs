//! Folders of files: copied, counted, and put out of the page cache.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Advice, fadvise};

/// Every file in a folder and in the folders in it.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => left.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Copies a folder to a place where there is none.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy(&entry.path(), &target)?,
            kind if kind.is_file() => drop(fs::copy(entry.path(), target)?),
            _ => {}
        }
    }
    Ok(())
}

/// Bytes of all files, by their lengths.
pub fn bytes(folder: &Path) -> io::Result<u64> {
    files(folder)?.iter().map(|file| Ok(fs::metadata(file)?.len())).sum()
}

/// Writes back all files.
pub fn sync(folder: &Path) -> io::Result<()> {
    files(folder)?.iter().try_for_each(|file| File::open(file)?.sync_all())
}

/// Writes back all files and asks the system to forget their pages, so that the next read comes from the disk.
pub fn evict(folder: &Path) -> io::Result<()> {
    files(folder)?.iter().try_for_each(|file| evict_file(file))
}

/// The same with one file.
pub fn evict_file(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // Pages that are not written yet cannot be forgotten.
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

/// Bytes a second at which a file is read from its begin to its end, 1 MiB at a time.
pub fn read_rate(path: &Path) -> io::Result<f64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let (mut total, began) = (0, Instant::now());
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(underbelly_benches::figure::rate(total, began.elapsed())),
            read => total += read as u64,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_every_byte() {
        let scratch = underbelly_benches::place::scratch().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        fs::create_dir_all(from.join("inner/empty")).unwrap();
        fs::write(from.join("a"), b"abc").unwrap();
        fs::write(from.join("inner/b"), vec![1; 5000]).unwrap();
        evict(&from).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!((bytes(&from).unwrap(), bytes(&to).unwrap()), (5003, 5003));
        assert_eq!(fs::read(to.join("inner/b")).unwrap(), vec![1; 5000]);
        assert!(to.join("inner/empty").is_dir());
        assert!(read_rate(&to.join("inner/b")).unwrap() > 0.0);
    }
}
