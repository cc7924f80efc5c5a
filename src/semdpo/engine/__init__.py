"""What runs stages: their store, their fingerprints, and the models that they use."""
