"""How far our numbers are from others': checked where they are computed, shown as tables when all tests have run."""

import numpy as np

PROPERTY = "deviation"  # of a test's report, which also reaches the process that started pytest-xdist's workers


class Deviations:
    """Compares arrays and keeps the result for a table; a test gets one as the fixture `deviation`.

    Args:
        title: Of the table.
        record: pytest's `record_property`.
    """

    def __init__(self, title, record):
        self.title = title
        self.record = record

    def __call__(self, row, column, found, expected, tolerance, floor=0.0):
        """Assert that `found` is `expected`, up to `tolerance` of its largest value or of `floor`, if that is more."""
        assert np.size(found) == np.size(expected), f"{column}: {np.shape(found)} next to {np.shape(expected)}"
        value = relative(found, expected, floor)
        self.keep(row, column, value)
        assert value <= tolerance, f"{row}, {column}: deviates by {value:.1e}, more than {tolerance:.0e}"

    def keep(self, row, column, value):
        """Take a number that was compared elsewhere into the table."""
        self.record(PROPERTY, [self.title, row, column, float(value)])


def relative(ours, theirs, floor=0.0):
    """The largest difference as a fraction of the largest value of `theirs`, or of `floor` if that is more."""
    theirs = np.reshape(theirs, np.shape(ours))
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), floor))


def tables(reports):
    """The lines of the tables that tests' reports hold: the largest number for each row and column."""
    found = {}
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == PROPERTY:
                title, row, column, number = value
                cells = found.setdefault(title, {}).setdefault(row, {})
                cells[column] = max(number, cells.get(column, 0.0))
    for title, rows in sorted(found.items()):
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        width = max(map(len, rows))
        yield ""
        yield title
        yield " | ".join([" " * width, *columns])
        for row, cells in sorted(rows.items()):
            numbers = [f"{cells[name]:.1e}" if name in cells else "" for name in columns]
            yield " | ".join([row.ljust(width), *(n.rjust(len(c)) for n, c in zip(numbers, columns, strict=True))])
