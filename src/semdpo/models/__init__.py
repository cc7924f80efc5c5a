"""Published and local models behind the package's protocols: rewriters, renderers, scorers and text encoders."""
