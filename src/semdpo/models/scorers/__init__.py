"""Scorers of images against prompts: one file each, found by ``registry``."""
