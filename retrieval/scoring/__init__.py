"""The DiffSim formula as pure functions on tensors."""
