"""`semdpo serve`: rewriting over HTTP, for programs that speak OpenAI's interface, and for a page in a browser."""
