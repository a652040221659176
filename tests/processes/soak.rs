//! All at once, killed at any moment; `soak --minutes 60` does so for an hour.

use underbelly_tests::soak::{self, Settings};

#[test]
fn what_is_killed_at_any_moment_loses_nothing_doubles_nothing_and_leaves_nobody_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (program, folder) = (env!("CARGO_BIN_EXE_soak").into(), folder.path().to_path_buf());
    let report = soak::run(&Settings { program, folder, kills: Some(12), time: None, seed: 3 }).unwrap();
    assert_eq!(report.kills.values().sum::<u64>(), 12, "{report}");
    assert_eq!(report.kills.len(), 4, "each kind of process is killed: {report}");
    assert!(report.inputs > 0 && report.runs["completed"] > 0, "{report}");
}
