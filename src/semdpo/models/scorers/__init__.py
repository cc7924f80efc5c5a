"""Scorers of images against prompts: one file each, found by ``registry``; ``base`` holds what they share.

A new scorer is a new file here with a ``ScorerKind`` in the constant ``SCORER``.
"""
