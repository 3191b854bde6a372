"""One verb of the command line per file; `proxy.__main__` imports only the one that is asked for."""
