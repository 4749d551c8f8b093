"""SS-ADA: losses, views, acquisition and the training loop."""
