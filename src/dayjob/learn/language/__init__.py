"""The night of a language policy: from lessons and replayed prompts to an adapter.

``lessons`` is what goes in, ``recipes`` what may be done with it, ``night`` the loop on one page; ``parts`` and
``parts_feedback`` turn rows into losses, ``anchors`` and ``exercises`` turn records into rows, ``study`` is the model
that learns and ``writing`` lets it write. ``table`` compares recipes.
"""
