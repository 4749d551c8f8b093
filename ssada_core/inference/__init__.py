"""From a uint8 frame to a uint8 label, by whichever engine the machine runs best."""
