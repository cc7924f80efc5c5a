"""How the tiny world's models are trained from nothing."""
