"""Rows, and the files that hold them: one way to read what a user brings, one way to write."""
