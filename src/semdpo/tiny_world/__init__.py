"""The embedded tiny world: a grammar of scenes, a painter, simulated people, and models trained on them."""
