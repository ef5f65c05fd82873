//! `pageveil`: runs guests whose memory their manager can map, dump, save and restore, but not
//! read; and the management tools that show it.

mod commands;
mod demo;
mod output;
mod picture;

use std::process::ExitCode;

use clap::Parser;

use crate::commands::Command;
use crate::output::Failed;

const EXIT_STATUS: &str = "Exit status: 0 done, 1 refused or failed, 2 not told right.
With --json, the last line on standard output is one JSON object.";

/// Run guests whose memory their manager can map, dump, save and restore, but not read.
///
/// `pageveil run` is the trusted process: it owns a guest's memory and keys. Every other command
/// is a management tool that talks to it over its control socket, and gets sealed pages, pages
/// that the guest itself opened, and refusals. `pageveil demo` shows the whole in ten seconds.
#[derive(Debug, Parser)]
#[command(name = "pageveil", version, max_term_width = 100, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) | Err(Failed::Unread) => ExitCode::SUCCESS,
        Err(failed @ Failed::Words(_)) => {
            eprintln!("pageveil: {failed}");
            ExitCode::FAILURE
        }
    }
}
