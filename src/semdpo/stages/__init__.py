"""The steps of the method, in the order in which data flows; rows in, rows out, and none imports another."""
