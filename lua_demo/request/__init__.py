"""A request: checked, as plain settings, and what it starts from."""
