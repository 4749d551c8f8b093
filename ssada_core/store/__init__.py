"""What is kept on disk: atomic files, the frame pool, the model registry."""
