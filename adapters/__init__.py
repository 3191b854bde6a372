"""One file per wire language; `proxy.adapter.load` finds them by name. Nothing here does I/O."""
