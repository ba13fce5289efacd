"""The parts of the report: what was measured, in words, in tables, in each format."""
