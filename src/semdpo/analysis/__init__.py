"""Mathematics and statistics of texts and scores: no model, no file."""
