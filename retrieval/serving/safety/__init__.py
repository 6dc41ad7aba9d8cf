"""What keeps a server safe: who may ask, how often, how much, and what a browser may do with an answer."""
