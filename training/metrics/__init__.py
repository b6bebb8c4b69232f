"""Measuring networks: pure functions of features, or of a network and a distance."""
