//! Columns of text for a terminal.

use std::fmt;

/// How wide a line becomes before its last cell goes on in the next one.
const WIDTH: usize = 100;
/// A cell that is wider than this makes its own line longer, not all of them.
const WIDEST: usize = 40;
const GAP: usize = 2;

/// Rows of cells. Columns are as wide as their widest cell, within reason; the last one is a list that is wrapped.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    rows: Vec<([String; N], Vec<String>)>,
}

impl<const N: usize> Table<N> {
    /// No rows yet.
    pub(super) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row of `N` cells and the list after them.
    pub(super) fn row(&mut self, cells: [impl Into<String>; N], list: Vec<String>) {
        self.rows.push((cells.map(Into::into), list));
    }

    /// Whether there is no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn widths(&self) -> [usize; N] {
        std::array::from_fn(|column| {
            let widths = self.rows.iter().map(|(cells, _)| width(&cells[column]));
            widths.filter(|width| *width <= WIDEST).max().unwrap_or(0)
        })
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        // A column without a word in it takes no room.
        let indent: usize = GAP
            + widths
                .iter()
                .filter(|width| **width > 0)
                .map(|width| width + GAP)
                .sum::<usize>();
        for (cells, list) in &self.rows {
            let mut line = " ".repeat(GAP);
            for (cell, width) in cells.iter().zip(widths).filter(|(_, width)| *width > 0) {
                line.push_str(&format!("{cell:width$}{:GAP$}", ""));
            }
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    line.push(',');
                    if width(&line) + width(item) + 1 > WIDTH {
                        writeln!(f, "{line}")?;
                        line = " ".repeat(indent);
                    } else {
                        line.push(' ');
                    }
                }
                line.push_str(item);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn columns_align_and_nothing_trails() {
        let mut table = Table::new();
        assert!(table.is_empty());
        table.row(["a", "", "bb"], list(&["1", "2"]));
        table.row(["aaa", "", "b"], list(&[]));
        assert_eq!(table.to_string(), "  a    bb  1, 2\n  aaa  b\n");
    }

    #[test]
    fn a_long_list_goes_on_below_and_a_wide_cell_widens_its_own_line() {
        let name = "n".repeat(30);
        let mut table = Table::new();
        table.row(["a"], list(&[&name, &name, &name, &name, &name]));
        table.row(["w".repeat(50)], list(&["x"]));
        assert_eq!(
            table.to_string(),
            format!(
                "  a  {name}, {name}, {name},\n     {name}, {name}\n  {}  x\n",
                "w".repeat(50)
            )
        );
    }
}
