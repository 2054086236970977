//! The loop on a scripted device, and whole runs.

mod scripted;
mod whole;
