"""What other libraries don't promise to keep, one module per library; nothing else in the project uses it.

Each function says what it stands in for, since which version it is needed, and what happens where the library no
longer has it. `tests/common/test_internals.py` tests each, so that a new release that changes one is noticed there.
"""
