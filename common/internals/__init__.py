"""Access to parts of other libraries that are not public API, one module per library.

No other code in the project uses such parts. Each docstring names the missing public API, the versions that have the
private part, and whether the project requires it. `tests/common/test_internals.py` tests each of them, to detect
releases that change one.
"""
