//! A deterministic machine, an adversary, and an explorer that lets things happen between any two
//! steps of the shipped core.
//!
//! Nothing here knows a clock, a random number, a thread or a frontend: one trace is one run.
#![forbid(unsafe_code)]

pub mod bytes;
pub mod config;
pub mod conformance;
pub mod diamonds;
mod echo;
mod enabled;
pub mod event;
pub mod explain;
pub mod explore;
mod facts;
pub mod fingerprint;
pub mod flight;
pub mod fuzz;
pub mod host;
pub mod invariant;
pub mod lockstep;
pub mod machine;
pub mod mark;
pub mod mutant;
pub mod obliging;
mod path;
pub mod product;
mod rename;
pub mod report;
pub mod resume;
pub mod seen;
mod shard;
pub mod shrink;
mod signature;
pub mod software;
pub mod sometimes;
pub mod state;
pub mod study;
pub mod swarm;
pub mod symmetry;
pub mod table;
pub mod trace;
pub mod twins;
pub mod world;
pub mod wrong;
