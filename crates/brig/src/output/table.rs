//! Tables as docker prints them: columns of at least ten characters, three spaces between.

/// Docker's least column width, spaces included.
const MIN_WIDTH: usize = 10;
/// Spaces after the widest cell of a column.
const PADDING: usize = 3;

/// Aligns lines of cells that tabs end. The last cell of a line is not padded.
pub(crate) fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH)
}

/// As [`align`], with another least column width (`top` has 20).
pub(crate) fn align_with(text: &str, min_width: usize) -> String {
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut out = String::with_capacity(text.len() * 2);
    // A column is a run of lines that have the cell: its width is that of the run.
    let mut widths: Vec<Option<(usize, usize)>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.len().saturating_sub(1);
        widths.truncate(cells);
        for (column, cell) in row.iter().take(cells).enumerate() {
            let known = widths.get(column).copied().flatten().filter(|(end, _)| index < *end);
            let (end, width) = known.unwrap_or_else(|| column_run(&rows, index, column, min_width));
            if widths.len() <= column {
                widths.resize(column + 1, None);
            }
            if let Some(slot) = widths.get_mut(column) {
                *slot = Some((end, width));
            }
            out.push_str(cell);
            for _ in cell.chars().count()..width {
                out.push(' ');
            }
        }
        out.push_str(row.last().copied().unwrap_or_default());
        out.push('\n');
    }
    out
}

fn column_run(rows: &[Vec<&str>], start: usize, column: usize, min_width: usize) -> (usize, usize) {
    let mut width = min_width;
    let mut end = start;
    for row in rows.iter().skip(start) {
        // The last cell of a line ends no column.
        if row.len() <= column + 1 {
            break;
        }
        let cell = row.get(column).map_or(0, |cell| cell.chars().count());
        width = width.max(cell + PADDING);
        end += 1;
    }
    (end, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_ten_wide_at_least() {
        assert_eq!(align("ID\tNAME\nab\tx\n"), "ID        NAME\nab        x\n");
        assert_eq!(
            align("ID\tNAME\tLAST\n0123456789ab\tä\tz\n"),
            "ID             NAME      LAST\n0123456789ab   ä         z\n"
        );
    }

    #[test]
    fn a_line_without_tabs_ends_the_columns() {
        assert_eq!(
            align("a\tb\ntext\nlonger than ten\tc\n"),
            "a         b\ntext\nlonger than ten   c\n"
        );
        assert_eq!(align("a\t\tc\n"), "a                   c\n");
        assert_eq!(align(""), "");
    }
}
