"""What runs the stages: their files, their fingerprints, and the models that they use."""
