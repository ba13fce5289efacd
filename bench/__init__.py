"""The harness: plans, computes, stores and compares."""
