"""The schema, declared once as data: SQL, row tuples and checks are derived from it.

Every primary key begins with the tenant, and with the policy wherever a row belongs to one, so that a shared store
can partition by them. ``seq`` is one counter for decisions and outcomes together: the order of the journal.
"""

from dataclasses import dataclass

# 2: where a job's replay ends; vectors of the erased that wait for their check. 3: what language policies wrote.
SCHEMA_VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its SQL type with its constraints."""

    name: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table: columns, primary key, further indexes as (name, columns, unique)."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: tuple[tuple[str, tuple[str, ...], bool], ...] = ()

    def create(self) -> list[str]:
        """The statements that make this table and its indexes. An index holds no row that has NULL in its columns:
        nobody looks for those, and every page that a commit need not touch makes it cheaper."""
        nullable = {column.name for column in self.columns if "NOT NULL" not in column.sql}
        body = ", ".join(f"{column.name} {column.sql}" for column in self.columns)
        out = [f"CREATE TABLE IF NOT EXISTS {self.name} ({body}, PRIMARY KEY ({', '.join(self.key)})) STRICT"]
        for name, columns, unique in self.indexes:
            kind = "UNIQUE INDEX" if unique else "INDEX"
            held = " AND ".join(f"{column} IS NOT NULL" for column in columns if column in nullable)
            where = f" WHERE {held}" if held else ""
            out.append(f"CREATE {kind} IF NOT EXISTS {name} ON {self.name} ({', '.join(columns)}){where}")
        return out

    def names(self) -> tuple[str, ...]:
        """The column names in order."""
        return tuple(column.name for column in self.columns)

    def insert(self, verb: str = "INSERT") -> str:
        """An insert of a full row with positional parameters."""
        return f"{verb} INTO {self.name} ({', '.join(self.names())}) VALUES ({', '.join('?' * len(self.columns))})"

    def select(self, where: str) -> str:
        """A select of full rows."""
        return f"SELECT {', '.join(self.names())} FROM {self.name} {where}"


def _columns(text: str) -> tuple[Column, ...]:
    """Columns from lines of ``name TYPE constraints``."""
    pairs = (line.split(maxsplit=1) for line in text.strip().splitlines())
    return tuple(Column(name=name, sql=sql.strip()) for name, sql in pairs)


DECISIONS = Table(
    name="decisions",
    columns=_columns("""
        tenant TEXT NOT NULL
        policy TEXT NOT NULL
        seq INTEGER NOT NULL
        id TEXT NOT NULL
        body_digest BLOB NOT NULL
        user TEXT
        session TEXT
        at_ms INTEGER NOT NULL
        version TEXT NOT NULL
        challenger TEXT
        role TEXT NOT NULL
        role_propensity REAL NOT NULL
        explore INTEGER NOT NULL
        seed BLOB NOT NULL
        epsilon REAL NOT NULL
        temperature REAL NOT NULL
        intervened INTEGER NOT NULL
        coin INTEGER NOT NULL
        candidate_ids TEXT NOT NULL
        candidate_digests BLOB NOT NULL
        pair BLOB NOT NULL
        base BLOB NOT NULL
        score BLOB NOT NULL
        rival_score BLOB NOT NULL
        ranking BLOB NOT NULL
        propensity BLOB NOT NULL
        log_propensity REAL NOT NULL
        extra TEXT
        context BLOB NOT NULL
        generation TEXT
        prompt_ids BLOB
        bare_ids BLOB
        choices BLOB
    """),
    key=("tenant", "policy", "seq"),
    indexes=(
        ("decisions_id", ("tenant", "id"), True),
        ("decisions_user", ("tenant", "user"), False),
        ("decisions_session", ("tenant", "session"), False),
    ),
)

_OUTCOME = """
        id TEXT NOT NULL
        body_digest BLOB NOT NULL
        decision TEXT
        session TEXT
        kind TEXT NOT NULL
        item TEXT
        position INTEGER
        value TEXT
        text TEXT
        source TEXT NOT NULL
        user TEXT
        at_ms INTEGER NOT NULL
        received_ms INTEGER NOT NULL
        key_id TEXT NOT NULL
"""

OUTCOMES = Table(
    name="outcomes",
    columns=_columns("tenant TEXT NOT NULL\n policy TEXT NOT NULL\n seq INTEGER NOT NULL\n" + _OUTCOME.strip()),
    key=("tenant", "policy", "seq"),
    indexes=(
        ("outcomes_id", ("tenant", "id"), True),
        ("outcomes_decision", ("tenant", "decision"), False),
        ("outcomes_user", ("tenant", "user"), False),
        ("outcomes_session", ("tenant", "session"), False),
    ),
)

# Outcomes that came before their decision. They move to `outcomes`, with a new seq, when it arrives.
HELD = Table(
    name="held",
    columns=_columns("tenant TEXT NOT NULL\n policy TEXT NOT NULL\n seq INTEGER NOT NULL\n" + _OUTCOME.strip()),
    key=("tenant", "policy", "seq"),
    indexes=(
        ("held_id", ("tenant", "id"), True),
        ("held_decision", ("tenant", "decision"), False),
        ("held_session", ("tenant", "session"), False),
        ("held_key", ("tenant", "key_id"), False),
        ("held_received", ("received_ms",), False),
    ),
)

# Vectors are appended (rowid order) and found by digest: random keys never scatter the big rows.
VECTORS = Table(
    name="vectors",
    columns=_columns("tenant TEXT NOT NULL\n digest BLOB NOT NULL\n vector BLOB NOT NULL"),
    key=("tenant", "digest"),
)

CATALOGS = Table(
    name="catalogs",
    columns=_columns("""
        tenant TEXT NOT NULL
        policy TEXT NOT NULL
        ordinal INTEGER NOT NULL
        id TEXT NOT NULL
        digest BLOB NOT NULL
        meta TEXT
    """),
    key=("tenant", "policy", "ordinal"),
    indexes=(("catalogs_id", ("tenant", "policy", "id"), True), ("catalogs_digest", ("tenant", "digest"), False)),
)

# Keyed hashes of erased ids: a resent row is refused, and nothing about the person remains.
TOMBSTONES = Table(
    name="tombstones",
    columns=_columns("tenant TEXT NOT NULL\n mark BLOB NOT NULL\n seq INTEGER NOT NULL"),
    key=("tenant", "mark"),
    indexes=(("tombstones_seq", ("tenant", "seq"), False),),
)

# Vectors that an erased person's decisions used, until it is known that nobody else's do: then they go too.
SUSPECTS = Table(
    name="suspects",
    columns=_columns("tenant TEXT NOT NULL\n digest BLOB NOT NULL"),
    key=("tenant", "digest"),
)

COUNTS = Table(
    name="counts",
    columns=_columns("tenant TEXT NOT NULL\n policy TEXT NOT NULL\n what TEXT NOT NULL\n n INTEGER NOT NULL"),
    key=("tenant", "policy", "what"),
)

JOURNAL_TABLES = (DECISIONS, OUTCOMES, HELD, VECTORS, CATALOGS, TOMBSTONES, SUSPECTS, COUNTS)

POLICIES = Table(
    name="policies",
    columns=_columns("""
        tenant TEXT NOT NULL
        name TEXT NOT NULL
        kind TEXT NOT NULL
        spec TEXT NOT NULL
        created_ms INTEGER NOT NULL
    """),
    key=("tenant", "name"),
)

POINTERS = Table(
    name="pointers",
    columns=_columns("""
        tenant TEXT NOT NULL
        policy TEXT NOT NULL
        champion TEXT NOT NULL
        previous TEXT
        challenger TEXT
        baseline TEXT NOT NULL
        frozen TEXT NOT NULL
        generation INTEGER NOT NULL
    """),
    key=("tenant", "policy"),
)

VERSIONS = Table(
    name="versions",
    columns=_columns("""
        tenant TEXT NOT NULL
        policy TEXT NOT NULL
        name TEXT NOT NULL
        number INTEGER NOT NULL
        parent TEXT
        recipe TEXT NOT NULL
        digest TEXT NOT NULL
        from_seq INTEGER NOT NULL
        to_seq INTEGER NOT NULL
        status TEXT NOT NULL
        created_ms INTEGER NOT NULL
        detail TEXT NOT NULL
    """),
    key=("tenant", "policy", "name"),
    indexes=(("versions_number", ("tenant", "policy", "number"), True),),
)

JOBS = Table(
    name="jobs",
    columns=_columns("""
        tenant TEXT NOT NULL
        policy TEXT NOT NULL
        id TEXT NOT NULL
        recipe TEXT NOT NULL
        state TEXT NOT NULL
        progress REAL NOT NULL
        result TEXT
        error TEXT
        created_ms INTEGER NOT NULL
        updated_ms INTEGER NOT NULL
        until_seq INTEGER
    """),
    key=("tenant", "policy", "id"),
    indexes=(("jobs_id", ("id",), True),),
)

LEASES = Table(
    name="leases",
    columns=_columns("name TEXT NOT NULL\n holder TEXT NOT NULL\n token INTEGER NOT NULL\n until_ms INTEGER NOT NULL"),
    key=("name",),
)

# The state of a process over one policy (the judge's evidence, the learner's cursor): written with its fencing token.
STATES = Table(
    name="states",
    columns=_columns("""
        tenant TEXT NOT NULL
        policy TEXT NOT NULL
        name TEXT NOT NULL
        state TEXT NOT NULL
        updated_ms INTEGER NOT NULL
    """),
    key=("tenant", "policy", "name"),
)

VERDICTS = Table(
    name="verdicts",
    columns=_columns("""
        tenant TEXT NOT NULL
        policy TEXT NOT NULL
        n INTEGER NOT NULL
        challenger TEXT NOT NULL
        champion TEXT NOT NULL
        kind TEXT NOT NULL
        reason TEXT NOT NULL
        evidence TEXT NOT NULL
        at_ms INTEGER NOT NULL
        by TEXT NOT NULL
    """),
    key=("tenant", "policy", "n"),
)

# What the dashboard draws: one row a point.
SERIES = Table(
    name="series",
    columns=_columns("""
        tenant TEXT NOT NULL
        policy TEXT NOT NULL
        name TEXT NOT NULL
        n INTEGER NOT NULL
        point TEXT NOT NULL
    """),
    key=("tenant", "policy", "name", "n"),
)

PEOPLE = Table(
    name="people",
    columns=_columns("tenant TEXT NOT NULL\n user TEXT NOT NULL\n learn INTEGER NOT NULL"),
    key=("tenant", "user"),
)

# Who does not want to be learned from and was erased since: the wish stays, without the name.
SILENT_MARKS = Table(
    name="silent_marks", columns=_columns("tenant TEXT NOT NULL\n mark BLOB NOT NULL"), key=("tenant", "mark")
)

# Who taught which version: kept as keyed marks, so that erasing a person finds what learned from them.
LESSONS = Table(
    name="lessons",
    columns=_columns("tenant TEXT NOT NULL\n policy TEXT NOT NULL\n version TEXT NOT NULL\n mark BLOB NOT NULL"),
    key=("tenant", "policy", "version", "mark"),
    indexes=(("lessons_mark", ("tenant", "mark"), False),),
)

# What happened to notes beyond what outcomes say, in order. A note itself is a projection of outcomes (`memory`).
NOTE_EVENTS = Table(
    name="note_events",
    columns=_columns("""
        tenant TEXT NOT NULL
        policy TEXT NOT NULL
        n INTEGER NOT NULL
        note TEXT NOT NULL
        change TEXT NOT NULL
        version TEXT NOT NULL
        at_ms INTEGER NOT NULL
        by TEXT NOT NULL
    """),
    key=("tenant", "policy", "n"),
)

SECRETS = Table(name="secrets", columns=_columns("name TEXT NOT NULL\n value BLOB NOT NULL"), key=("name",))

CONTROL_TABLES = (
    POLICIES, POINTERS, VERSIONS, JOBS, LEASES, STATES, VERDICTS, SERIES, PEOPLE, SILENT_MARKS, LESSONS, NOTE_EVENTS,
    SECRETS,
)  # fmt: skip
