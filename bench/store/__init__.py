"""Runs and studies on disk. Enters what reads or writes them; no torch."""
