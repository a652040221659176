//! A small option-pricing desk: from a chain of quotes to forwards, implied volatilities, smiles, a surface, and a
//! page that shows them.
//!
//! Each step is a pure function of plain structs, so that it can be called from anywhere: the same input gives the
//! same output, bit for bit. Nothing panics on bad quotes. Each step answers with a value or with a typed reason, and
//! every quote ends up either used or refused with a reason that is counted.
//!
//! ```
//! use underbelly_desk::{desk, simulate};
//!
//! let day = simulate::day(&simulate::MarketSettings::default(), 0);
//! let night = desk::night(&day.chain, &desk::DeskSettings::default());
//! let surface = night.surface?;
//! assert!((0.2..0.3).contains(&surface.vol(0.0, 0.5)));
//! # Ok::<(), underbelly_desk::surface::SurfaceError>(())
//! ```
//!
//! In reading order:
//!
//! * [`chain`]: quotes by expiry, read from a file; which prices belong to their date
//! * [`simulate`]: a market that is repeatable by its seed, with the truth beside the quotes
//! * [`forward`]: forward and discount of an expiry from put-call parity
//! * [`black`]: Black's formula and its inversion
//! * [`vols`]: the implied volatilities of an expiry
//! * [`smile`]: an SVI slice without butterfly arbitrage through them
//! * [`surface`]: the smiles of a date joined in time
//! * [`compare`]: fitted volatilities beside the vendor's
//! * [`desk`]: all of these in a row for one chain
//! * [`page`]: a self-contained HTML page of the results
//! * [`tables`]: the slots of a database and their rows
//! * [`producers`]: the steps as producers of a database
//! * [`report`]: what such a database holds, for people

pub mod black;
pub mod chain;
pub mod compare;
pub mod desk;
pub mod forward;
pub mod page;
pub mod producers;
pub mod report;
pub mod simulate;
pub mod smile;
pub mod surface;
pub mod tables;
pub mod vols;
