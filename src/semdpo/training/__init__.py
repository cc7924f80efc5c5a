"""Supervised fine-tuning and preference training."""
