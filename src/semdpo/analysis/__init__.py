"""Mathematics and statistics of texts and scores, without models and files."""
