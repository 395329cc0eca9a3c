"""Terms to be added to another objective: divergences from a frozen policy."""
