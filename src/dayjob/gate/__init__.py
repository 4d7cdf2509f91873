"""The gate: new weights serve only when the record proves them better.

``confidence``  evidence that may be looked at after every observation (betting e-processes, confidence sequences)
``elond``       many challengers in a row: the level of each, so that false promotions stay rare among all promotions
``control``     what the past says of position 1's pull and of each person's influence
``trial``       the live comparison: fair-coin pairs of champion and challenger
``verdict``     promote, hold, reject or cannot tell, in words
``watch``       after a promotion: automatic rollback
``shares``      how traffic is shared between serving, watching and trying, on a budget
``monitors``    alarms that never promote: concentration, reward against truth, not learning
``drift``       another: did the pull of position 1 change, or what people want?
``screen``      off-policy estimates; they choose what is worth a trial and never decide

Shapes: ``_N`` observations in decision order, ``_B`` decisions, ``_K`` positions or candidates, ``_G`` betting
fractions, ``_R`` independent runs, ``_U`` users, ``_E`` experts.
"""
