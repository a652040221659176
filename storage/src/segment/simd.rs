//! Dispatch by instruction set: the same loops, compiled once for each set that the compiler may use.
//!
//! Contract. A function that is compiled for a set of instructions runs only where the processor has them: an
//! [`Instructions`] other than the portable one is made by [`Instructions::all`] alone, after the processor was asked.
//! Results are the same bits on every set, since the loops are the same and neither Rust nor the compiler joins a
//! product with a sum.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// Work that is worth compiling for each set. What it does in its loops must be inlined into [`Work::run`].
pub(super) trait Work {
    /// What comes of it.
    type Made;

    /// Does it. Implementations are `#[inline(always)]`.
    fn run(self) -> Self::Made;
}

/// A set of instructions that this processor has, in which segments are encoded and decoded.
///
/// The best set is taken by itself. All give the same bits; to take another one is for comparisons.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Instructions(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Portable,
    Avx2,
    Avx512,
}

/// The set in use, as its number and one more; 0 before the processor was asked.
static IN_USE: AtomicU8 = AtomicU8::new(0);

impl Instructions {
    /// The sets that this processor has, the best last.
    pub fn all() -> Vec<Instructions> {
        let mut sets = vec![Instructions(Set::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                sets.push(Instructions(Set::Avx2));
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
            {
                sets.push(Instructions(Set::Avx512));
            }
        }
        sets
    }

    /// The set in use in this process.
    pub fn in_use() -> Instructions {
        let number = IN_USE.load(Ordering::Relaxed);
        let chosen = [Set::Portable, Set::Avx2, Set::Avx512].into_iter().find(|set| *set as u8 + 1 == number);
        if let Some(set) = chosen {
            return Instructions(set);
        }
        let best = Instructions::all().pop().unwrap_or(Instructions(Set::Portable));
        best.choose();
        best
    }

    /// Takes this set from now on, in all of the process.
    pub fn choose(self) {
        IN_USE.store(self.0 as u8 + 1, Ordering::Relaxed);
    }

    /// `portable`, `avx2` or `avx512`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            Set::Avx2 => "avx2",
            Set::Avx512 => "avx512",
        }
    }

    /// Does work in these instructions.
    pub(super) fn run<W: Work>(self, work: W) -> W::Made {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set is made only where the processor said that it has what `avx2` is compiled for.
            #[allow(unsafe_code)]
            Set::Avx2 => unsafe { avx2(work) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set is made only where the processor said that it has what `avx512` is compiled for.
            #[allow(unsafe_code)]
            Set::Avx512 => unsafe { avx512(work) },
            _ => work.run(),
        }
    }
}

impl fmt::Debug for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<W: Work>(work: W) -> W::Made {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw")]
fn avx512<W: Work>(work: W) -> W::Made {
    work.run()
}
