//! How the elements of `C` are shared out among tasks.

use std::ops::Range;

/// Tasks a thread, if there are columns enough.
const TASKS: usize = 2;
/// Fewest rows that are worth packing `B` for once more.
pub(super) const MIN_ROWS: usize = 512;

/// How `C` is shared out: parts of rows × groups of columns.
pub(super) struct Grid {
    /// Rows, their panels, and the parts they are cut into.
    rows: [usize; 3],
    mr: usize,
    /// The same of columns.
    cols: [usize; 3],
    nr: usize,
}

impl Grid {
    /// For panels of this size, `[rows, cols]` of C, and columns of so many words, of which a task takes at most `group`.
    pub(super) fn new(
        [mr, nr]: [usize; 2],
        [rows, cols]: [usize; 2],
        words: usize,
        group: usize,
    ) -> Self {
        let threads = rayon::current_num_threads();
        let (row_panels, col_panels) = (rows.div_ceil(mr), cols.div_ceil(nr));
        let largest = (group / (nr * words.max(1))).clamp(1, col_panels);
        let wanted = if threads == 1 { 1 } else { TASKS * threads };
        // Each group of columns reads `A`, and each part of rows packs `B`: parts of rows have to be high.
        let high = rows >= TASKS * MIN_ROWS;
        let groups = col_panels.div_ceil(largest).max(if high { threads } else { wanted });
        // A multiple of the thread count, so that equal tasks finish together.
        let groups = groups.next_multiple_of(threads).min(col_panels);
        let enough = high || groups < threads;
        let row_parts = if enough { wanted.div_ceil(groups).min(row_panels) } else { 1 };
        Self { rows: [rows, row_panels, row_parts], mr, cols: [cols, col_panels, groups], nr }
    }

    /// The same where a task reads or packs its own rows of `A`: as few groups of columns as there can be, and as many parts of
    /// rows as occupy the threads.
    pub(super) fn of_rows(
        [mr, nr]: [usize; 2],
        [rows, cols]: [usize; 2],
        words: usize,
        group: usize,
    ) -> Self {
        if rows < TASKS * MIN_ROWS {
            return Self::new([mr, nr], [rows, cols], words, group);
        }
        let threads = rayon::current_num_threads();
        let (row_panels, col_panels) = (rows.div_ceil(mr), cols.div_ceil(nr));
        let largest = (group / (nr * words.max(1))).clamp(1, col_panels);
        let groups = col_panels.div_ceil(largest);
        let wanted = if threads == 1 { 1 } else { TASKS * threads };
        let mut row_parts = wanted.div_ceil(groups);
        if !groups.is_multiple_of(threads) {
            row_parts = row_parts.next_multiple_of(threads);
        }
        let row_parts = row_parts.min(row_panels);
        Self { rows: [rows, row_panels, row_parts], mr, cols: [cols, col_panels, groups], nr }
    }

    /// Groups of columns.
    pub(super) fn groups(&self) -> usize {
        self.cols[2]
    }

    pub(super) fn tasks(&self) -> usize {
        self.rows[2] * self.cols[2]
    }

    /// The rows and the columns of one task.
    pub(super) fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let part = |[len, panels, parts]: [usize; 3], size: usize, i: usize| {
            let start = |i: usize| (i * panels / parts * size).min(len);
            start(i)..start(i + 1)
        };
        (
            part(self.rows, self.mr, task / self.cols[2]),
            part(self.cols, self.nr, task % self.cols[2]),
        )
    }
}
