//! The door for management tools: a Unix socket over which they get sealed pages, whitelisted
//! pages and refusals, and nothing else.

pub mod client;
pub mod server;
pub mod viewing;
pub mod wire;
