"""The machine: devices and dtypes, memory, timing, stopping, several processes, command-line arguments."""
