"""Objectives: pure functions of tensors that return ``(loss, stats)``. No model, optimiser, file, log or configuration.

Legend of shapes, used in every name:

    _B   decisions                     _K   candidates (slots, the caller's order) or positions of the shown list
    _BK  one number a candidate        _S   sampled rankings of one decision

Conventions:

- ``score_BK`` are a ranker's scores in slot order; larger is better; fillers hold ``-inf`` or are named by ``real_BK``.
- ``shown_BK`` holds the slot at each position, -1 once the list has ended; ``click_B`` the clicked position, -1 none.
- ``loss`` is a scalar to minimise, a mean over the decisions that count (0 when none does); ``stats`` are detached
  scalar tensors. Nothing here calls ``.item()``.
"""
