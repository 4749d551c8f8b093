"""Labels from humans: checked once, however they arrive."""
