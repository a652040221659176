//! Makes the databases that `tests/golden` keeps, in the format that this program writes, and beside each as text what it
//! shows: `cargo run -p underbelly-tests --bin golden`. Needed where the format changes, and only then.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use underbelly::Database;
use underbelly_tests::sample::{Failed, describe, is_kept, kept, options};

fn main() -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let mut bytes = 0;
    for (name, disk) in kept()? {
        // An opening makes spares anew, and a disk in memory has no lock file.
        for file in disk.files().into_iter().filter(|file| is_kept(file)) {
            let path = root.join(name).join(&file);
            fs::create_dir_all(path.parent().unwrap_or(&root))?;
            let contents = disk.contents(&file).ok_or("a file that vanished")?;
            bytes += contents.len();
            fs::write(path, contents)?;
        }
        let db = Database::open_on(Arc::new(disk.crash()), options())?;
        fs::write(root.join(name).with_extension("txt"), describe(&db)?)?;
    }
    println!("{} bytes in {}", bytes, root.display());
    Ok(())
}
