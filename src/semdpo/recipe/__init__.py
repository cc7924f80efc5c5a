"""Recipes: their settings and defaults, how they are read, and the shipped recipes."""
