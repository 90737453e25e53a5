"""Deviations from reference values: tests check and record them, and pytest prints them as tables at the end."""

import numpy as np

PROPERTY = "deviation"  # a property of test reports, which pytest-xdist's workers send to the main process


class Deviations:
    """Compares arrays and records their deviations for a table. Tests use it as the fixture `deviation`.

    Args:
        title: Title of the table.
        record: pytest's function `record_property`.
    """

    def __init__(self, title, record):
        self.title = title
        self.record = record

    def __call__(self, row, column, actual, expected, tolerance, floor=0.0):
        """Assert equality up to `tolerance` times the larger of `floor` and the largest value of `expected`."""
        assert np.size(actual) == np.size(expected), f"{column}: shape {np.shape(actual)}, not {np.shape(expected)}"
        value = relative_deviation(actual, expected, floor)
        self.keep(row, column, value)
        assert value <= tolerance, f"{row}, {column}: deviates by {value:.1e}, more than {tolerance:.0e}"

    def keep(self, row, column, value):
        """Record a deviation that the test computed itself."""
        self.record(PROPERTY, [self.title, row, column, float(value)])


def relative_deviation(actual, expected, floor=0.0):
    """Return the largest difference, divided by the larger of `floor` and the largest value of `expected`."""
    expected = np.reshape(expected, np.shape(actual))
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), floor))


def tables(reports):
    """Yield the lines of the tables in test reports, with the largest deviation for each row and column."""
    rows_by_title = {}
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == PROPERTY:
                title, row, column, number = value
                cells = rows_by_title.setdefault(title, {}).setdefault(row, {})
                cells[column] = max(number, cells.get(column, 0.0))
    for title, rows in sorted(rows_by_title.items()):
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        width = max(map(len, rows))
        yield ""
        yield title
        yield " | ".join([" " * width, *columns])
        for row, cells in sorted(rows.items()):
            numbers = [f"{cells[name]:.1e}" if name in cells else "" for name in columns]
            yield " | ".join([row.ljust(width), *(n.rjust(len(c)) for n, c in zip(numbers, columns, strict=True))])
