"""`python3 -m lua_demo`."""

import sys

from lua_demo.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
