"""Notes: what people taught, placed in the context of those it is for, until the weights know it.

Outcomes become lessons (`lessons`, `filters`), lessons become notes (`project`), the notes that concern a question are
found (`retrieve`) and quoted within a budget (`render`). `notes` keeps all of that in step with the journal.
"""
