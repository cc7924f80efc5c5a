"""Rows and the files that hold them: one way to read users' files, one way to write files."""
