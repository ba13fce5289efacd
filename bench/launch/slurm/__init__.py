"""SLURM: jobs, their states and their ends. Enters what talks to a scheduler."""
