//! Where it is measured: a folder on a real file system.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Failed;

/// The environment's name of the folder that is used.
pub const VARIABLE: &str = "UNDERBELLY_BENCH_DIR";

/// The folder in which databases are made: `$UNDERBELLY_BENCH_DIR`, or `target/bench-data` in the workspace, since
/// the system's folder for temporary files may be in memory.
pub fn folder() -> Result<PathBuf, Failed> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-data");
    let folder = std::env::var_os(VARIABLE).map_or_else(default, PathBuf::from);
    fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot make folder {}: {error}", folder.display()))?;
    Ok(folder.canonicalize()?)
}

/// An empty folder that is removed when it is dropped.
pub fn scratch() -> Result<TempDir, Failed> {
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(folder()?)?)
}

/// Type and device of the file system that holds a folder, such as `ext4 on /dev/vda`.
pub fn file_system(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holds = |line: &str| {
        let mut parts = line.split(' ');
        let (device, at, kind) = (parts.next()?, parts.next()?, parts.next()?);
        folder.starts_with(at).then(|| (at.len(), format!("{kind} on {device}")))
    };
    // Of mounts on one place the last is the one that is seen.
    let found = mounts.lines().filter_map(holds).max_by_key(|(length, _)| *length);
    found.map_or_else(|| "unknown".to_string(), |(_, name)| name)
}

/// The most memory that this process ever held, bytes (`VmHWM`); `None` where the system does not say.
pub fn peak_memory() -> Option<u64> {
    memory("VmHWM:")
}

/// The memory that this process holds now, bytes (`VmRSS`); 0 where the system does not say.
pub fn resident_memory() -> u64 {
    memory("VmRSS:").unwrap_or_default()
}

fn memory(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_known() {
        let folder = scratch().unwrap();
        assert!(folder.path().is_dir());
        if cfg!(target_os = "linux") {
            assert_ne!(file_system(folder.path()), "unknown");
            assert!(peak_memory().unwrap() > 1 << 20);
        }
    }
}
