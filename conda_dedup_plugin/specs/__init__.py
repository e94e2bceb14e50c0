"""Explicit specs: which packages an environment has, or a file asks for."""
