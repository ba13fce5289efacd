"""The harness: plans, computes, stores and compares. Notebooks enter by :mod:`bench.library`."""
