"""A recorded drive through model, adaptation and report."""
