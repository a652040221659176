//! The machine stops at any call that changes something.

use std::sync::Arc;

use underbelly::disk::Calls;
use underbelly::{Database, SimulatedDisk};

use crate::script::{calls, check, run, settings};

/// Wherever the machine stops, and whatever of the unsynced part reached the disk, reopening shows exactly what was
/// acknowledged, or one whole transaction more, with no damage, and goes on from there.
#[test]
fn a_crash_at_every_call_leaves_a_prefix() {
    let calls = calls(Calls::Changing);
    for call in 0..calls {
        let disk = SimulatedDisk::new();
        disk.fail_at(Some(call));
        let mut script = run(&disk);
        script.stop();
        let at = format!("stopped at call {call} of {calls}");
        check(&disk.crash(), &script, &format!("{at}, nothing kept"));
        check(&disk.crash_keeping_all(), &script, &format!("{at}, all kept"));
        for seed in 0..2 {
            let seed = call * 2 + seed;
            check(&disk.crash_with(seed), &script, &format!("{at}, kept by seed {seed}"));
        }
    }
}

/// The same where only the process stopped: the next one finds unsynced bytes and names in their places, and loses
/// them in a power cut unless it syncs them.
#[test]
fn a_stop_that_loses_nothing_leaves_a_prefix() {
    let calls = calls(Calls::Changing);
    for call in 0..calls {
        let disk = SimulatedDisk::new();
        disk.fail_at(Some(call));
        let mut script = run(&disk);
        script.stop();
        disk.fail_at(None);
        check(&disk, &script, &format!("process stopped at call {call} of {calls}"));
    }
}

/// A crash during the recovery from a crash, at each call of it, loses nothing either.
#[test]
fn a_crash_during_recovery_leaves_a_prefix() {
    for call in 0..calls(Calls::Changing) {
        let disk = SimulatedDisk::new();
        disk.fail_at(Some(call));
        let mut script = run(&disk);
        script.stop();
        if !script.created {
            continue;
        }
        let left = |disk: &SimulatedDisk, seed: u64| match seed % 4 {
            0 => disk.crash(),
            1 => disk.crash_keeping_all(),
            _ => disk.crash_with(seed),
        };
        for step in 0.. {
            let disk = left(&disk, call);
            disk.fail_at(Some(step));
            let recovered = Database::open_on(Arc::new(disk.clone()), settings()).is_ok();
            check(
                &left(&disk, call + step),
                &script,
                &format!("stopped at {call}, then at {step} of the recovery"),
            );
            if recovered {
                break;
            }
        }
    }
}
