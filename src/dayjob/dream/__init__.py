"""Dreams: environments built from a job's own record, proved sound in the sandbox, and rehearsed in.

`excerpts` is what a dream is made from; `author_offline` and `author_model` write programs; `prove` and `faithful` try
them; `rehearse` practises within a budget; `store` says what was dreamt. `world` measures a learned model of an
application, and `plan` looks ahead in it; `rankers` imagines users. Knows nothing of learning or serving: whoever
assembles (``cli.dream``) reads the journal for it, hands it an actor and somebody who learns from trajectories.
"""
