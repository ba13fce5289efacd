"""Images: sets, crops and feeds of batches. Enters what stands between files and a batch."""
