"""Scores of a trained encoder. Enters a task and what several tasks share."""
