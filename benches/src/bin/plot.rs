//! Draws a recording of `peers`: `plot benches/record/FILE.json OUT.svg`.

use std::error::Error;
use std::fs;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = words.as_slice() else {
        eprintln!("usage: plot RECORD.json OUT.svg");
        return ExitCode::from(2);
    };
    match draw(from, to) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{from} can't be drawn to {to}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn draw(from: &str, to: &str) -> Result<(), Box<dyn Error>> {
    let record = serde_json::from_str(&fs::read_to_string(from)?)?;
    Ok(fs::write(to, benches::plot(&record)?)?)
}
