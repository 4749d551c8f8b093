"""The online round: what should happen next, the worker that trains, the gate that decides."""
