//! Text in columns, as kubectl prints it.

use crate::visible::{visible, width};

/// The space between two columns.
const GAP: usize = 3;

/// Lines of cells, each column as wide as its widest cell, no space at a line's end. Whatever a cell holds, it is one
/// visible cell.
pub(crate) fn columns(rows: &[Vec<String>], gap: usize) -> String {
    let rows: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| visible(cell)).collect())
        .collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, widest) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', widest + gap - width(cell)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A table under a line of headings.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut all = vec![headings.iter().map(|heading| (*heading).to_owned()).collect()];
    all.extend(rows);
    columns(&all, GAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_is_as_wide_as_its_widest_cell() {
        let rows = vec![
            vec!["default".into(), "a".into(), "1d".into()],
            vec!["ns".into(), "longer-name".into(), "2m".into()],
        ];
        assert_eq!(
            table(&["NAMESPACE", "POD", "AGE"], rows),
            "NAMESPACE   POD           AGE\n\
             default     a             1d\n\
             ns          longer-name   2m\n"
        );
    }

    #[test]
    fn a_column_is_as_wide_as_what_is_seen_of_its_cells() {
        let rows = vec![
            vec!["a\x1b[2J".into(), "x\ny\tz".into(), "1".into()],
            vec!["世界".into(), "\u{202e}b".into(), "2".into()],
        ];
        assert_eq!(
            table(&["POD", "STATUS", "AGE"], rows),
            "POD        STATUS    AGE\n\
             a\\x1b[2J   x\\ny\\tz   1\n\
             世界       \\u202eb   2\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        assert_eq!(table(&["A", "B"], vec![]), "A   B\n");
    }
}
