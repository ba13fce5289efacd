"""What a study's records say. Enters what turns them into tables, sentences and plots; no torch."""
