"""Starting runs: where and when. Enters what knows of processes and schedulers."""
