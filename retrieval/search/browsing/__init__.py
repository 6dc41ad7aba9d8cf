"""Browse an index: its items one by one or page by page, their files, and a map of all of them."""
