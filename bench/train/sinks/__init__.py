"""Trackers, one file each. Enters a function ``(folder, config) -> bench.api.Sink``."""
