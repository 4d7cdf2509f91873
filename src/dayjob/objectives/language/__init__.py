"""Objectives of language policies: pure functions of tensors that return ``(loss, stats)``. torch only.

Legend of shapes, used in every name:

    _B   sequences (one sampled, corrected or replayed completion a row)      _V   vocabulary
    _BT  one number a token of the completion, prompt left out                _D   width of the last hidden state
    _N   tokens of many sequences in a row, masked ones left out              _R   rank of an adapter

Conventions:

- **Log-probabilities** are natural, of the distribution that was *sampled* (divided by its temperature), FP32 or wider.
  ``behaviour_BT`` comes from the journal and is never recomputed: the log-probability with which the token was served.
- **Denominators.** Every objective takes weights, one a token (``weight_BT``) or a sequence (``weight_B``), and is the
  weighted sum. Weights are made once for the whole step (:mod:`dayjob.objectives.language.weights`: by tokens,
  sequences, prompts or a constant), then sliced with the rows. So each objective of a mixture has its own denominator,
  and the gradients of microbatches add up to that of the batch, whatever the split.
- A weight of 0 is a masked token or a row left out: anything may stand there, NaN included.
- **Stats** are detached scalars, each a sum over rows, so those of microbatches add up too. Nothing calls ``.item()``.
- Larger is better for rewards and advantages; ``loss`` is to be minimised.
"""
