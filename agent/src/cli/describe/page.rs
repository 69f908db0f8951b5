//! Text whose columns line up over neighbouring lines, as kubectl's descriptions do: a column is as wide as its widest
//! cell among neighbouring lines that have a cell to its right.
//!
//! Whatever a cell holds, it is one visible cell: it cannot add lines or columns.

use std::iter::repeat_n;

use crate::visible::{visible, width};

/// The space after the widest cell of a column.
const PADDING: usize = 2;

/// The indent of one level.
const INDENT: &str = "  ";

/// What stands for a tab within a cell.
const TAB: &str = "    ";

/// A page of lines, lined up when it is finished.
#[derive(Default)]
pub(super) struct Page {
    rows: Vec<Vec<String>>,
}

impl Page {
    /// A line of one cell at an indent.
    pub(super) fn line(&mut self, level: usize, text: &str) {
        self.cells(level, &[text]);
    }

    /// A line of several cells at an indent.
    pub(super) fn cells(&mut self, level: usize, cells: &[&str]) {
        let mut row: Vec<String> = cells
            .iter()
            .map(|cell| visible(&cell.replace('\t', TAB)).into_owned())
            .collect();
        if let Some(first) = row.first_mut() {
            first.insert_str(0, &INDENT.repeat(level));
        }
        self.rows.push(row);
    }

    /// `NAME:   VALUE`; further lines of the value stand below its first.
    pub(super) fn field(&mut self, level: usize, name: &str, value: &str) {
        for (index, part) in value.split('\n').enumerate() {
            match index {
                0 => self.cells(level, &[&format!("{name}:"), part]),
                _ => self.cells(level, &["", part]),
            }
        }
    }

    /// A field that is left out where there is nothing to say.
    pub(super) fn optional(&mut self, level: usize, name: &str, value: Option<&impl ToString>) {
        let value = value.map(ToString::to_string).unwrap_or_default();
        if !value.is_empty() {
            self.field(level, name, value.trim_end());
        }
    }

    /// A field of one value a line, `<none>` without any.
    pub(super) fn list(&mut self, level: usize, name: &str, values: impl Iterator<Item = String>) {
        let values: Vec<String> = values.collect();
        match values.is_empty() {
            true => self.field(level, name, "<none>"),
            false => self.field(level, name, &values.join("\n")),
        }
    }

    /// The page as text.
    pub(super) fn finish(self) -> String {
        let mut widths: Vec<Vec<usize>> = vec![Vec::new(); self.rows.len()];
        line_up(&self.rows, &mut widths, 0);
        let mut text = String::new();
        for (row, widths) in self.rows.iter().zip(&widths) {
            let mut line = String::new();
            for (index, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if let Some(widest) = widths.get(index) {
                    line.extend(repeat_n(' ', widest - width(cell)));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Finds the widths of column `column` and those to its right, one for each cell but a line's last.
fn line_up(rows: &[Vec<String>], widths: &mut [Vec<usize>], column: usize) {
    let mut start = 0;
    while start < rows.len() {
        let has_cell = |row: &Vec<String>| row.len() > column + 1;
        if !has_cell(&rows[start]) {
            start += 1;
            continue;
        }
        let length = rows[start..].iter().take_while(|row| has_cell(row)).count();
        let block = start..start + length;
        let widest = rows[block.clone()].iter().map(|row| width(&row[column])).max();
        for row in &mut widths[block.clone()] {
            row.push(widest.unwrap_or(0) + PADDING);
        }
        line_up(&rows[block.clone()], &mut widths[block.clone()], column + 1);
        start = block.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_among_neighbouring_lines_only() {
        let mut page = Page::default();
        page.field(0, "Name", "etcd");
        page.field(0, "Namespace", "kube-system");
        page.line(0, "Containers:");
        page.field(1, "Image", "busybox");
        page.list(1, "Labels", ["a=1".to_owned(), "b=2".to_owned()].into_iter());
        page.list(1, "None", std::iter::empty());
        page.optional(1, "Reason", None::<&String>);
        assert_eq!(
            page.finish(),
            "Name:       etcd\n\
             Namespace:  kube-system\n\
             Containers:\n\
             \x20 Image:   busybox\n\
             \x20 Labels:  a=1\n\
             \x20          b=2\n\
             \x20 None:    <none>\n"
        );
    }

    #[test]
    fn a_later_column_lines_up_within_the_block_of_those_before_it() {
        let mut page = Page::default();
        page.cells(0, &["a", "b", "c"]);
        page.cells(0, &["aaa", "bbb", "c"]);
        page.cells(0, &["aaaaa", "c"]);
        assert_eq!(page.finish(), "a      b    c\naaa    bbb  c\naaaaa  c\n");
    }

    #[test]
    fn what_a_cell_holds_is_seen_and_stays_in_its_cell() {
        let mut page = Page::default();
        page.field(0, "Na\nme", "a\tb\r\x1b[2J");
        page.field(0, "\u{202e}", "one\ntwo");
        page.cells(0, &["a\tb", "c\nd"]);
        assert_eq!(
            page.finish(),
            "Na\\nme:  a    b\\r\\x1b[2J\n\
             \\u202e:  one\n\
             \x20        two\n\
             a    b   c\\nd\n"
        );
    }
}
