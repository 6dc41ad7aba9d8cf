"""The commands: parse arguments, call one library function, print. Nothing imports this package."""
