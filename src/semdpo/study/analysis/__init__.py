"""What the votes of a study say: one statistic, one file, each computed from judgements alone."""
