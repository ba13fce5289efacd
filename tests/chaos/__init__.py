"""A study under random kills and file faults; ``python -m tests.chaos``, not part of the tests."""
