"""Things of four kinds that an outside package adds to mto-bench."""
