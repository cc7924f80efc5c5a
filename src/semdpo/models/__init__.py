"""Adapters of published and local models to the protocols."""
