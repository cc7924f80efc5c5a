"""What a recipe needs of a machine, found out before hours are spent."""
