"""The stages of the method; each one reads rows and writes rows, and no stage imports another."""
