"""One run, from its folder to its record. Enters what needs the whole of a run."""
