"""What supervised and preference training share."""
