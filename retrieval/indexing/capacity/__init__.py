"""How long a build takes and how many machines a search needs, from rates that were measured on a few images."""
