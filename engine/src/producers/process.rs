//! Producers that run in child processes: `pool` keeps the processes of a producer and the threads that attend to them,
//! `child` is one process, `pipe` its streams, `translate` turns runs into messages and answers into outputs.

mod child;
mod pipe;
mod pool;
mod translate;

pub(crate) use pool::{Pool, attend, retire};
