"""What the longer commands do; ``cli`` holds their options."""
