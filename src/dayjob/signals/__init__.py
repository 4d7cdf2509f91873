"""Outcomes turned into numbers that a learner and a judge may use. Pure functions over numpy arrays.

    clicklog     the one input of this folder: what was shown, with which probability, and what was clicked
    clickmodels  position-based model and trust bias by EM; perplexity
    choice       the mixture "pulled by the position, or chosen by relevance", relevance a function of scores
    intervene    what randomised positions prove: AllPairs, the uniform draw at position 1, intervals
    orders       the same mixture told apart by lists that chance moved, pooled over the orders that served
    bias         the pull of each position with intervals, or why it is unidentifiable
    predicted    clicks by position as the fitted model foretells them, beside what came
    features     what is known of a candidate before the click: crowding, small models learned on the past
    dependence   permutation tests: do clicks, or rewards, depend on the items, given the position?
    detector     can these clicks, or rewards, teach anything beyond position?
    informants   which users look, by empirical Bayes, with capped influence
    ceiling      what best-of-k would give, and which lever is short
    rewards      rewards and thumbs as numbers in [0, 1]
    logfile      a stranger's CSV or JSONL read into a ClickLog
    auditing     everything above about one log, in one record
    intervals    intervals and tails, without scipy

Shapes: ``_B`` decisions, ``_K`` positions, ``_V`` distinct items, ``_U`` users, ``_C`` cells (item, position),
``_F`` features, ``_N`` blocks of consecutive decisions.
"""
