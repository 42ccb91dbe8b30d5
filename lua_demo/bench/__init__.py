"""How fast the networks are: against reference implementations, against the machine, and along whole paths."""
