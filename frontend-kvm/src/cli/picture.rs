//! A picture of a guest's memory: which page is what to its manager.

use std::fmt::Write;

use view_core::PageState;

/// Cells in a row of the picture.
const COLUMNS: usize = 64;
/// Rows at most; then a cell stands for several pages.
const ROWS_MAX: usize = 64;
const CELL: usize = 11;
const MARGIN: usize = 24;
const TOP: usize = 84;

/// What a cell can be, in the order in which one page stands out among its neighbours.
const LEGEND: [(&str, &str, &str); 8] = [
    ("poisoned", "#b3001b", "closed to everybody after a failure"),
    ("open", "#e8a33d", "plain to its manager, by the guest's own act"),
    ("being built", "#8d99ae", "raw, before launch"),
    ("sealed in place", "#5a189a", "sealed in its own frame"),
    ("paged out", "#a06cd5", "its sealed bytes are with the manager"),
    ("replica", "#3a86b7", "plain to the guest; a sealed snapshot is mapped"),
    ("private", "#1d3557", "plain to the guest; sealed if its manager looks"),
    ("free", "#e9ecef", "backed by nothing"),
];

fn rank(state: PageState) -> usize {
    match state {
        PageState::Poisoned | PageState::Scrubbing => 0,
        PageState::Open { .. } => 1,
        PageState::Building => 2,
        PageState::Sealed => 3,
        PageState::PagedOut => 4,
        PageState::Replica => 5,
        PageState::Private => 6,
        PageState::Free => 7,
    }
}

/// How many pages there are of each kind that occurs.
pub(crate) fn counts(states: &[PageState]) -> Vec<(&'static str, usize)> {
    let count = |wanted| states.iter().filter(|state| rank(**state) == wanted).count();
    let kinds = LEGEND.iter().enumerate();
    kinds.map(|(wanted, (name, ..))| (*name, count(wanted))).filter(|(_, n)| *n > 0).collect()
}

/// The picture, as a self-contained SVG.
pub(crate) fn page_map(states: &[PageState], title: &str) -> String {
    let per_cell = states.len().div_ceil(COLUMNS * ROWS_MAX).max(1);
    let cells: Vec<usize> = states
        .chunks(per_cell)
        .map(|pages| pages.iter().map(|state| rank(*state)).min().unwrap_or(LEGEND.len() - 1))
        .collect();
    let rows = cells.len().div_ceil(COLUMNS);
    let kinds = counts(states);
    let (width, legend_at) = (MARGIN * 2 + 64 + COLUMNS * CELL, TOP + rows * CELL + 28);
    let height = legend_at + kinds.len() * 22 + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"36\" font-size=\"20\" fill=\"#14213d\">{}</text>\n",
        escape(title)
    );
    let each = if per_cell == 1 { "one page".to_owned() } else { format!("{per_cell} pages") };
    let pages = states.len();
    line(&mut svg, 60, 13, &format!("{pages} pages of 4 KiB; a cell is {each}, row by row"));
    for (row, cells) in cells.chunks(COLUMNS).enumerate() {
        draw_row(&mut svg, row, cells, per_cell);
    }
    draw_legend(&mut svg, &kinds, legend_at);
    svg.push_str("</svg>\n");
    svg
}

fn draw_row(svg: &mut String, row: usize, cells: &[usize], per_cell: usize) {
    let y = TOP + row * CELL;
    if row.is_multiple_of(4) {
        let first = row * COLUMNS * per_cell;
        put(
            svg,
            format_args!(
                "<text x=\"{MARGIN}\" y=\"{}\" font-size=\"10\" font-family=\"monospace\" \
             fill=\"#6c757d\">{first:#07x}</text>",
                y + CELL - 2
            ),
        );
    }
    let mut column = 0;
    for run in cells.chunk_by(|a, b| a == b) {
        let Some((_, colour, _)) = run.first().and_then(|rank| LEGEND.get(*rank)) else { continue };
        for cell in column..column + run.len() {
            let (x, size) = (MARGIN + 64 + cell * CELL, CELL - 1);
            put(
                svg,
                format_args!(
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{size}\" height=\"{size}\" \
                     fill=\"{colour}\"/>"
                ),
            );
        }
        column += run.len();
    }
}

fn draw_legend(svg: &mut String, kinds: &[(&str, usize)], top: usize) {
    for (index, (name, count)) in kinds.iter().enumerate() {
        let Some((_, colour, words)) = LEGEND.iter().find(|(kind, ..)| kind == name) else {
            continue;
        };
        let (y, x) = (top + index * 22, MARGIN + 22);
        put(
            svg,
            format_args!(
                "<rect x=\"{MARGIN}\" y=\"{}\" width=\"14\" height=\"14\" fill=\"{colour}\" \
             stroke=\"#adb5bd\"/><text x=\"{x}\" y=\"{y}\" font-size=\"13\" fill=\"#14213d\">\
             <tspan font-weight=\"bold\">{name}</tspan> &#215; {count}: {words}</text>",
                y - 12
            ),
        );
    }
}

fn line(svg: &mut String, y: usize, size: usize, words: &str) {
    put(
        svg,
        format_args!(
            "<text x=\"{MARGIN}\" y=\"{y}\" font-size=\"{size}\" fill=\"#495057\">{}</text>",
            escape(words)
        ),
    );
}

fn put(svg: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = writeln!(svg, "{what}");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_open_page_shows_even_where_a_cell_is_many_pages() {
        let mut states = vec![PageState::Private; 1 << 18];
        states[77_777] = PageState::Poisoned;
        let svg = page_map(&states, "a <guest>");
        assert_eq!(svg.matches("#b3001b").count(), 2, "one cell and the legend");
        assert!(svg.contains("a &lt;guest&gt;"));
    }
}
