"""Conda packages, channels and environments made on the spot, without a network."""
