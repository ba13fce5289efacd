"""Training: the loop, its steps, its log and its checkpoints. Enters what holds a gradient."""
