//! Whole models: the same bits however the work is cut, and sessions that keep their promises.

mod interrupted;
mod lock_step;
mod memory;
mod same_bits;
mod session;
mod story;
