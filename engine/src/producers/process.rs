//! Producers that run in child processes: `pool` keeps the processes of a producer and the threads that attend to them,
//! `child` is one process, `pipe` its streams, `translate` turns runs into messages and answers into outputs, `submit`
//! what daemons and clients commit into batches. `remote` is a
//! producer whose process others have started, and which came over a socket.

mod child;
mod keeper;
mod pipe;
mod pool;
mod remote;
pub(crate) mod submit;
mod translate;

pub(crate) use keeper::{Keeper, keep};
pub(crate) use pool::{Pool, attend, retire};
pub(crate) use remote::{Parting, Remote, Wire, attend_remote};
pub(crate) use translate::About;
