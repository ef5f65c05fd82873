//! A recording as a picture: throughput by suite and by the length of the list.
//!
//! Lines are named at their ends, in their own colour, so that there is no legend to look things
//! up in. The picture has a background of its own: what it is shown on is not known.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde_json::Value;

use crate::measure::LISTS;

const SIZE: (u32, u32) = (960, 560);
/// Pixels around the lines: top, right, bottom, left. Names stand on the right.
const MARGIN: (i32, i32, i32, i32) = (84, 232, 64, 64);
/// Names keep this far from each other.
const NAME_GAP: i32 = 19;

const PAPER: RGBColor = RGBColor(252, 252, 250);
const INK: RGBColor = RGBColor(34, 40, 49);
const GREY: RGBColor = RGBColor(106, 114, 125);
const GRID: RGBColor = RGBColor(222, 225, 229);

type Canvas<'s> = DrawingArea<SVGBackend<'s>, Shift>;
type Chart<'s> = ChartContext<'s, SVGBackend<'s>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stroke {
    Ours,
    Peer,
    Copy,
}

/// What is drawn, if the recording has it. The colours are told apart by the colour-blind too.
const LINES: &[(&str, &str, RGBColor, Stroke)] = &[
    ("nt-copy", "copy past the cache", GREY, Stroke::Copy),
    ("memcpy", "memcpy", INK, Stroke::Copy),
    ("aegis-128x4", "AEGIS-128X4", RGBColor(0, 114, 178), Stroke::Ours),
    ("aes-256-gcm", "AES-256-GCM", RGBColor(0, 138, 100), Stroke::Ours),
    ("ctr-cmac", "CTR+CMAC", RGBColor(134, 84, 190), Stroke::Ours),
    ("siv-cmac-512-seal", "SIV-CMAC-512, seal", RGBColor(203, 66, 10), Stroke::Ours),
    ("siv-cmac-512-open", "SIV-CMAC-512, open", RGBColor(222, 142, 0), Stroke::Ours),
    ("pmac-siv-512", "PMAC-SIV-512", RGBColor(190, 62, 130), Stroke::Ours),
    ("siv-cmac-512-portable", "SIV-CMAC-512, portable", RGBColor(138, 88, 50), Stroke::Ours),
    ("aws-lc-aes-256-gcm", "AWS-LC AES-256-GCM", GREY, Stroke::Peer),
    ("aws-lc-aes-256-gcm-siv", "AWS-LC AES-256-GCM-SIV", GREY, Stroke::Peer),
    ("naive-ctr-cmac", "naive CTR+CMAC", GREY, Stroke::Peer),
];

/// One line, with its points from left to right.
struct Line {
    name: &'static str,
    colour: RGBColor,
    stroke: Stroke,
    points: Vec<(f64, f64)>,
}

/// Draws a recording as SVG.
///
/// # Errors
/// What is wrong with the recording.
pub fn plot(record: &Value) -> Result<String, String> {
    let lines: Vec<_> = LINES.iter().filter_map(|line| read(record, *line)).collect();
    if lines.is_empty() {
        return Err("no line has all its points".into());
    }
    let mut svg = String::new();
    draw(&mut svg, record, &lines).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn read(
    record: &Value,
    (key, name, colour, stroke): (&str, &'static str, RGBColor, Stroke),
) -> Option<Line> {
    let point = |list: usize| {
        let gbps = record["by_batch"][key][list.to_string()].as_f64()?;
        Some(((list as f64).log2(), gbps))
    };
    let points: Option<Vec<_>> = LISTS.into_iter().map(point).collect();
    Some(Line { name, colour, stroke, points: points? })
}

fn draw(svg: &mut String, record: &Value, lines: &[Line]) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&PAPER)?;
    let points = lines.iter().flat_map(|line| &line.points);
    let top = points.fold(0.0, |top: f64, point| top.max(point.1)).ceil() + 0.5;
    let last = (LISTS[LISTS.len() - 1] as f64).log2();
    let (up, right, down, left) = MARGIN;
    let inner = root.margin(up, down, left, right);
    let mut chart = ChartBuilder::on(&inner).build_cartesian_2d(0.0..last, 0.0..top)?;
    headings(&root, record)?;
    axes(&root, &chart, top, last)?;
    for line in lines {
        stroke(&mut chart, line)?;
    }
    names(&root, &chart, lines)?;
    root.present()?;
    Ok(())
}

fn stroke(chart: &mut Chart<'_>, line: &Line) -> Drawn {
    let points = line.points.iter().copied();
    let (width, dot) = if line.stroke == Stroke::Ours { (3, 4) } else { (2, 3) };
    let style = line.colour.stroke_width(width);
    if line.stroke == Stroke::Copy {
        chart.draw_series(DashedLineSeries::new(points, 7, 5, style))?;
    } else {
        chart.draw_series(LineSeries::new(points.clone(), style))?;
        chart.draw_series(points.map(|at| Circle::new(at, dot, line.colour.filled())))?;
    }
    Ok(())
}

fn headings(root: &Canvas<'_>, record: &Value) -> Drawn {
    let left = MARGIN.3;
    let said = |key: &str| record["machine"][key].as_str().unwrap_or("?").to_owned();
    let commit: String = said("commit").chars().take(9).collect();
    let machine = format!("{}, {}, commit {commit}", said("cpu"), said("date"));
    let title = "Sealing pages of 4 KiB from cold memory to cold memory, one core";
    root.draw(&Text::new(title, (left, 20), text(21, INK, HPos::Left)))?;
    root.draw(&Text::new(machine, (left, 44), text(15, GREY, HPos::Left)))?;
    Ok(())
}

fn axes(root: &Canvas<'_>, chart: &Chart<'_>, top: f64, last: f64) -> Drawn {
    let step = if top > 12.0 { 2 } else { 1 };
    for gbps in (0..=top as i32).step_by(step) {
        let (left, y) = chart.backend_coord(&(0.0, gbps.into()));
        let (right, _) = chart.backend_coord(&(last, gbps.into()));
        root.draw(&PathElement::new([(left, y), (right, y)], GRID.stroke_width(1)))?;
        root.draw(&Text::new(gbps.to_string(), (left - 12, y), text(16, GREY, HPos::Right)))?;
    }
    let bottom = chart.backend_coord(&(0.0, 0.0)).1;
    for list in LISTS {
        let (x, _) = chart.backend_coord(&((list as f64).log2(), 0.0));
        root.draw(&PathElement::new([(x, bottom), (x, bottom + 5)], GREY.stroke_width(1)))?;
        root.draw(&Text::new(list.to_string(), (x, bottom + 17), text(16, GREY, HPos::Center)))?;
    }
    let middle =
        i32::midpoint(chart.backend_coord(&(0.0, 0.0)).0, chart.backend_coord(&(last, 0.0)).0);
    let below = (middle, bottom + 42);
    root.draw(&Text::new("pages a call", below, text(16, INK, HPos::Center)))?;
    root.draw(&Text::new("GB/s", (MARGIN.3 - 12, MARGIN.0 - 10), text(16, INK, HPos::Right)))?;
    Ok(())
}

/// Writes each name beside the end of its line, or as near as the others allow.
fn names(root: &Canvas<'_>, chart: &Chart<'_>, lines: &[Line]) -> Drawn {
    let end = |line: &Line| line.points.last().map(|point| chart.backend_coord(point));
    let mut ends: Vec<_> = lines.iter().filter_map(|line| Some((end(line)?, line))).collect();
    ends.sort_by_key(|((_, y), _)| *y);
    let places = apart(&ends.iter().map(|((_, y), _)| *y).collect::<Vec<_>>(), MARGIN.0 - 30);
    for (((x, y), line), place) in ends.into_iter().zip(places) {
        let thread = [(x + 8, y), (x + 22, place)];
        root.draw(&PathElement::new(thread, line.colour.mix(0.5).stroke_width(1)))?;
        let style = text(16, line.colour, HPos::Left);
        root.draw(&Text::new(line.name, (x + 27, place), style))?;
    }
    Ok(())
}

/// Where names go whose lines end at these heights, from the top: in the same order, a gap apart,
/// not above `top`, and no further from their lines than that takes. Names that touch are one
/// block, which stands in the middle of where its lines end.
fn apart(ends: &[i32], top: i32) -> Vec<i32> {
    struct Block {
        sum: i32,
        names: i32,
        start: i32,
    }
    let mut blocks: Vec<Block> = vec![];
    for end in ends {
        let mut block = Block { sum: *end, names: 1, start: *end };
        while let Some(above) = blocks.pop_if(|b| b.start + b.names * NAME_GAP > block.start) {
            // What each name would have its block start at, on average.
            let moved = block.sum - block.names * above.names * NAME_GAP;
            block = Block { sum: above.sum + moved, names: above.names + block.names, start: 0 };
            block.start = (block.sum / block.names).max(top);
        }
        blocks.push(block);
    }
    let places = |b: Block| (0..b.names).map(move |name| b.start + name * NAME_GAP);
    blocks.into_iter().flat_map(places).collect()
}

fn text(size: i32, colour: RGBColor, side: HPos) -> TextStyle<'static> {
    let style = TextStyle::from(("sans-serif", size).into_font());
    TextStyle { color: colour.to_backend_color(), pos: Pos::new(side, VPos::Center), ..style }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_keep_their_order_and_their_distance() {
        assert_eq!(apart(&[10, 100, 200], 0), [10, 100, 200]);
        assert_eq!(apart(&[100, 100], 0), [90, 109]);
        let places = apart(&[50, 52, 60, 300, 301, 302, 303], 40);
        assert!(places.is_sorted_by(|a, b| b - a >= NAME_GAP), "{places:?}");
        assert!(places[0] >= 40);
    }

    #[test]
    fn what_was_recorded_is_drawn_and_nothing_else() {
        let lists = json!({ "1": 4.0, "8": 5.0, "16": 6.0, "64": 7.0, "512": 8.0 });
        let record = json!({ "by_batch": { "memcpy": lists, "ctr-cmac": { "1": 2.0 } } });
        let svg = plot(&record).expect("one line is whole");
        assert!(svg.contains("memcpy") && !svg.contains("CTR"));
        assert!(plot(&json!({})).is_err());
    }
}
