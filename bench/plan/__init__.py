"""What is to be computed: settings, names, ids. Enters what is decided before a run; no torch."""
