"""Find damage, put a lost generation together again, and make a generation without the damage."""
