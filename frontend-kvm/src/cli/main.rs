//! `pageveil`: runs guests whose memory their manager can map, dump, save and restore, but not
//! read; and the management tools that show it.

mod commands;
mod demo;
mod output;
mod picture;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Command;

/// Run guests whose memory their manager can map, dump, save and restore, but not read.
///
/// `pageveil run` is the trusted process: it owns a guest's memory and keys. Every other command
/// is a management tool that talks to it over its control socket, and gets sealed pages, pages
/// that the guest itself opened, and refusals. `pageveil demo` shows the whole in ten seconds.
#[derive(Debug, Parser)]
#[command(name = "pageveil", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("pageveil: {failed}");
            ExitCode::FAILURE
        }
    }
}
