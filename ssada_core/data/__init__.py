"""Frames and labels: from files, bags, messages' bytes and the simulated drive, to arrays."""
