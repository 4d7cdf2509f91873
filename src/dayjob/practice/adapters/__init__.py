"""Environments of other libraries, behind our protocol. Each library is imported when its environment is made."""
