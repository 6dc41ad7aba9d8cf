"""The tensors of candidates: where they come from, and those kept in memory."""
