//! What each state looks like.

use underbelly::{State, StateCounts};

/// A fill and the ink upon it.
#[derive(Clone, Copy)]
pub(crate) struct Paint {
    pub(crate) fill: &'static str,
    pub(crate) ink: &'static str,
}

/// The initial of a state, in capitals; no two states share one.
pub(crate) fn letter(state: State) -> char {
    state.name().chars().next().unwrap_or('?').to_ascii_uppercase()
}

/// Worst first: the order in which a reader wants to see them.
pub(crate) const WORST_FIRST: [State; 6] =
    [State::Invalid, State::Stale, State::Void, State::Updated, State::Pending, State::Current];

/// On a light ground: what is sound is pale, what waits is blue or violet, what is not sound is strong.
pub(crate) fn light(state: State) -> Paint {
    let (fill, ink) = match state {
        State::Updated => ("#a9cdfb", "#0b3a75"),
        State::Pending => ("#cbbcf5", "#3d2585"),
        State::Current => ("#b5e3c4", "#0f4d2a"),
        State::Stale => ("#f5bd38", "#402a00"),
        State::Invalid => ("#cc3428", "#ffffff"),
        _ => ("#d9dee4", "#3f4954"),
    };
    Paint { fill, ink }
}

/// On a dark ground.
pub(crate) fn dark(state: State) -> Paint {
    let (fill, ink) = match state {
        State::Updated => ("#1f56a0", "#e2eeff"),
        State::Pending => ("#5640a0", "#ebe4ff"),
        State::Current => ("#1d5637", "#c6f2d5"),
        State::Stale => ("#d59b16", "#1e1400"),
        State::Invalid => ("#cf3a2e", "#ffffff"),
        _ => ("#3d4753", "#d5dce4"),
    };
    Paint { fill, ink }
}

/// The parameters of the escape sequence that colours a state in a terminal.
pub(crate) fn terminal(state: State) -> &'static str {
    match state {
        State::Updated => "34",
        State::Pending => "35",
        State::Current => "32",
        State::Stale => "30;43",
        State::Invalid => "1;97;41",
        _ => "2",
    }
}

/// A text in the colour of a state, where colours are wanted.
pub(crate) fn coloured(text: &str, state: State, colour: bool) -> String {
    if colour { format!("\x1b[{}m{text}\x1b[0m", terminal(state)) } else { text.to_string() }
}

/// States that have cells, worst first, with their number.
pub(crate) fn counted(states: &StateCounts) -> Vec<(State, u64)> {
    WORST_FIRST.into_iter().map(|state| (state, states.of(state))).filter(|(_, cells)| *cells > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Contrast of two colours as WCAG 2 defines it.
    fn contrast(a: &str, b: &str) -> f64 {
        let luminance = |colour: &str| {
            let part = |at: usize| {
                let v = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap_or(0)) / 255.0;
                if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
        };
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn states_differ_by_letter_and_are_legible() {
        let letters: BTreeSet<char> = State::ALL.into_iter().map(letter).collect();
        assert_eq!(letters.len(), State::ALL.len());
        let ordered: BTreeSet<State> = WORST_FIRST.into_iter().collect();
        assert_eq!(ordered.len(), State::ALL.len());
        for state in State::ALL {
            for paint in [light(state), dark(state)] {
                let contrast = contrast(paint.fill, paint.ink);
                assert!(contrast >= 4.5, "{state}: {contrast:.2}");
            }
        }
    }
}
