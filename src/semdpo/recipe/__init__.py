"""What a recipe may say, and how it is read: settings, their defaults, the shipped recipes."""
