"""Checks what a recipe needs of a machine, before hours of work."""
