"""The indexes that a server holds open, and caches of pictures beside them."""
