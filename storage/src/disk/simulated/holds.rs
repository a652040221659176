//! Locks of a simulated disk: who shares or claims a file.

use std::sync::{Arc, Mutex};

use super::{Lock, hold};

/// Who holds a file or the folder.
#[derive(Default)]
pub(super) struct Holds {
    sharing: usize,
    is_claimed: bool,
}

/// The same for all handles and names of a file.
pub(super) type SharedHolds = Arc<Mutex<Holds>>;

impl Holds {
    /// Whether anybody does.
    pub fn is_held(&self) -> bool {
        self.is_claimed || self.sharing > 0
    }
}

struct Share(SharedHolds);

struct Claim(SharedHolds);

impl Lock for Share {}

impl Lock for Claim {}

impl Drop for Share {
    fn drop(&mut self) {
        hold(&self.0).sharing -= 1;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        hold(&self.0).is_claimed = false;
    }
}

/// Shares, unless somebody claims.
pub(super) fn share(holds: &SharedHolds) -> Option<Box<dyn Lock>> {
    let mut held = hold(holds);
    if held.is_claimed {
        return None;
    }
    held.sharing += 1;
    Some(Box::new(Share(holds.clone())))
}

/// Claims, unless somebody shares or claims.
pub(super) fn claim(holds: &SharedHolds) -> Option<Box<dyn Lock>> {
    let mut held = hold(holds);
    if held.is_held() {
        return None;
    }
    held.is_claimed = true;
    Some(Box::new(Claim(holds.clone())))
}
