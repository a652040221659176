//! `ubctl init`: makes a database.

use std::path::Path;

use underbelly::Database;

use crate::error::Failed;
use crate::output::print;

/// Makes an empty database in a folder that is empty or not there.
pub(crate) fn run(dir: &Path) -> Result<(), Failed> {
    let db = Database::create(dir)?;
    let place = db.status().dir;
    drop(db);
    print(&format!("made an empty database in {place}\n"))
}
