"""The clerk's world: what it knows, how people ask, and how an office teaches it otherwise."""
