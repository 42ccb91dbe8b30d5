"""The commands of `python3 -m lua_demo`."""
