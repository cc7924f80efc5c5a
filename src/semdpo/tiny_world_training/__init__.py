"""Trains the tiny world's models from scratch."""
