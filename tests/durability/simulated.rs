//! Some lives of the simulator: the long runs are those of its binary.

use underbelly_tests::simulator::{Figures, live};

/// Lives of the simulator end well, and do things worth simulating.
#[test]
fn the_simulator_finds_nothing() {
    let mut figures = Figures::default();
    for seed in 0..30 {
        live(seed, false, &mut figures).unwrap();
    }
    assert!(figures.cycles > 200 && figures.transactions > 1000, "{figures:?}");
    assert!(figures.faults > 100 && figures.interrupted > 20, "{figures:?}");
    assert!(figures.sent > 100 && figures.again > 10 && figures.lost > 3, "{figures:?}");
    assert!(figures.refused > 10 && figures.expired > 8 && figures.known > 100, "{figures:?}");
    assert!(
        figures.meanwhile > 100 && figures.reads > 100 && figures.backups > 1 && figures.cut > 0,
        "{figures:?}"
    );
    assert!(figures.fallbacks > 10 && figures.overtaken > 0, "{figures:?}");
    let lacks: Vec<_> = figures.kinds().into_iter().filter(|(_, count)| *count == 0).collect();
    assert!(lacks.is_empty(), "{lacks:?}: {figures:?}");
}

/// A life is the same each time: a failing seed can be looked at again.
#[test]
fn the_same_seed_lives_the_same_life() {
    let lived = |seed| {
        let mut figures = Figures::default();
        live(seed, false, &mut figures).unwrap();
        figures
    };
    for seed in 100..106 {
        assert_eq!(lived(seed), lived(seed), "seed {seed}");
    }
    assert_ne!(lived(100), lived(101));
}
