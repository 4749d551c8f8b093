"""What the parts cost, measured: fair comparisons on the user's own machine."""
