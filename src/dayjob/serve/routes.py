"""Every route, declared once as data: the app, its scopes and its OpenAPI document are made from this table.

A route without a declared access does not exist: the table is the only way in.
"""

from dayjob.serve import (
    answers,
    chat,
    chat_wire,
    conversations,
    dreams,
    export,
    feedback,
    nights,
    notes,
    ops,
    pages,
    pages_language,
    people,
    policies,
    rank,
    wire,
)
from dayjob.serve import answers_language as spoken
from dayjob.serve.auth import Scope
from dayjob.serve.call import JSON, NDJSON
from dayjob.serve.route import LARGE, Route

ADMIN, INFER, LEARN, FEEDBACK = Scope.ADMIN, Scope.INFER, Scope.LEARN, Scope.FEEDBACK

ROUTES: tuple[Route, ...] = (
    Route(
        method="PUT", path="/v1/policies/{name}", handler=policies.put_policy, scope=ADMIN,
        summary="Declare a policy, or change its settings", answer=answers.PolicyView, statuses=(200, 201),
        body=(wire.RankerSpec, wire.LanguageSpec), body_type=JSON,
    ),
    Route(
        method="GET", path="/v1/policies", handler=policies.list_policies, scope=LEARN,
        summary="Every policy", answer=answers.PolicyList,
    ),
    Route(
        method="GET", path="/v1/policies/{name}", handler=policies.get_policy, scope=LEARN,
        summary="A policy as it stands", answer=spoken.PersonsPolicyView, query=(("user", False),),
    ),
    Route(
        method="PUT", path="/v1/policies/{name}/catalog", handler=policies.put_catalog, scope=ADMIN,
        summary="Replace a policy's catalog", answer=answers.CatalogReceipt, body=wire.CatalogItem, body_type=NDJSON,
        limit=LARGE,
    ),
    Route(
        method="GET", path="/v1/policies/{name}/versions", handler=policies.list_versions, scope=LEARN,
        summary="Every version with its lineage", answer=answers.VersionList, query=(("user", False),),
    ),
    Route(
        method="POST", path="/v1/policies/{name}/learn", handler=policies.learn, scope=LEARN,
        summary="Learn a new challenger", answer=answers.JobStarted, statuses=(202,), body=wire.LearnRequest,
        body_type=JSON,
    ),
    Route(
        method="POST", path="/v1/policies/{name}/dream", handler=dreams.dream, scope=LEARN,
        summary="Rehearse in environments built from the journal", answer=answers.JobStarted, statuses=(202,),
        body=wire.DreamRequest, body_type=JSON,
    ),
    Route(
        method="GET", path="/v1/policies/{name}/dreams", handler=dreams.list_dreams, scope=LEARN,
        summary="What was dreamt, and what became of it", answer=spoken.DreamList,
        query=(("user", False), ("limit", False)),
    ),
    Route(
        method="POST", path="/v1/policies/{name}/rollback", handler=policies.rollback, scope=ADMIN,
        summary="Put an earlier version back", answer=spoken.PersonsPolicyView, body=wire.RollbackRequest,
        body_type=JSON,
    ),
    Route(
        method="POST", path="/v1/policies/{name}/promote", handler=policies.promote, scope=ADMIN,
        summary="Override the gate by hand", answer=spoken.PersonsPolicyView, body=wire.PromoteRequest,
        body_type=JSON,
    ),
    Route(
        method="POST", path="/v1/policies/{name}/freeze", handler=policies.freeze, scope=ADMIN,
        summary="Stop learning and trials", answer=answers.PolicyView, body=wire.FreezeRequest, body_type=JSON,
    ),
    Route(
        method="POST", path="/v1/policies/{name}/unfreeze", handler=policies.unfreeze, scope=ADMIN,
        summary="Learn again", answer=answers.PolicyView, body=wire.Nothing, body_type=JSON,
    ),
    Route(
        method="GET", path="/v1/policies/{name}/report", handler=policies.report, scope=LEARN,
        summary="What the record says", answer=answers.Report,
    ),
    Route(
        method="GET", path="/v1/policies/{name}/nights", handler=nights.list_nights, scope=LEARN,
        summary="What each night learned", answer=spoken.NightList,
        query=(("user", False), ("limit", False), ("version", False)),
        note="What people said is told, of the tenant's nights, to admin keys; of a person's, to keys that may speak "
        "for them.",
    ),
    Route(
        method="DELETE", path="/v1/lessons/{id}", handler=nights.delete_lesson, scope=FEEDBACK,
        summary="Unlearn a lesson by the next night", answer=spoken.DeletedLesson,
    ),
    Route(
        method="GET", path="/v1/policies/{name}/conversations", handler=conversations.list_conversations,
        scope=FEEDBACK, summary="What was said, and what came of it", answer=spoken.ConversationList,
        query=(("user", False), ("session", False), ("limit", False)),
        note="Without a user this tells what everybody said: a key that speaks for anybody needs admin.",
    ),
    Route(
        method="GET", path="/v1/decisions/{id}/compare", handler=conversations.compare, scope=INFER,
        summary="What the notes did to an answer, token by token", answer=spoken.Compared,
    ),
    Route(
        method="GET", path="/v1/policies/{name}/series", handler=pages.series, scope=LEARN,
        summary="The curves that the dashboard draws", answer=answers.SeriesView,
    ),
    Route(
        method="GET", path="/v1/jobs/{job}", handler=policies.read_job, scope=LEARN, summary="A job as it stands",
        answer=answers.JobView,
    ),
    Route(
        method="POST", path="/v1/chat/completions", handler=chat.chat, scope=INFER,
        summary="Answer as a language policy, whole or as a stream", answer=chat_wire.ChatAnswer,
        body=chat_wire.ChatRequest, body_type=JSON,
    ),
    Route(
        method="GET", path="/v1/models", handler=chat.models, scope=INFER,
        summary="What a chat may name as its model", answer=chat_wire.ModelList, query=(("user", False),),
    ),
    Route(
        method="GET", path="/v1/models/{model}", handler=chat.model, scope=INFER,
        summary="One of them, by its id", answer=chat_wire.ModelView, query=(("user", False),),
    ),
    Route(
        method="POST", path="/v1/rank", handler=rank.rank, scope=INFER, summary="Order candidates",
        answer=answers.RankResponse, body=wire.RankRequest, body_type=JSON,
    ),
    Route(
        method="POST", path="/v1/feedback", handler=feedback.feedback, scope=FEEDBACK,
        summary="Say what came of a decision", answer=answers.FeedbackAnswer, statuses=(200, 201, 202),
        body=(wire.FeedbackItem, wire.FeedbackBatch), body_type=JSON, token_opens=True,
    ),
    Route(
        method="GET", path="/v1/notes", handler=notes.list_notes, scope=FEEDBACK, summary="What was remembered",
        answer=notes.NoteList, query=(("user", False), ("session", False), ("policy", False)),
        note="Without a user or a session this lists everybody's notes: a key that speaks for anybody needs admin.",
    ),
    Route(
        method="PATCH", path="/v1/notes/{id}", handler=notes.patch_note, scope=ADMIN,
        summary="Make a note the tenant's, or its owner's again", answer=notes.NoteView, body=notes.NotePatch,
        body_type=JSON,
    ),
    Route(
        method="DELETE", path="/v1/notes/{id}", handler=notes.delete_note, scope=FEEDBACK, summary="Forget a note",
        answer=notes.DeletedNote,
    ),
    Route(
        method="GET", path="/v1/export", handler=export.export, scope=ADMIN, summary="Export as NDJSON",
        query=(("policy", True), ("format", False)), media=NDJSON,
        note="With format=parquet the decisions are one file of Parquet.",
    ),
    Route(
        method="GET", path="/v1/users/{user}", handler=people.get_user, scope=FEEDBACK,
        summary="All that is held about a person", answer=answers.UserView, others=ADMIN,
    ),
    Route(
        method="PATCH", path="/v1/users/{user}", handler=people.patch_user, scope=FEEDBACK,
        summary="Learn from a person, or not", answer=answers.UserWish, body=wire.UserPatch, body_type=JSON,
    ),
    Route(
        method="DELETE", path="/v1/users/{user}", handler=people.delete_user, scope=FEEDBACK,
        summary="Erase a person", answer=answers.ErasedView, others=ADMIN,
    ),
    Route(
        method="GET", path="/healthz", handler=ops.healthz, scope=None, summary="Whether the process lives",
        answer=answers.Health,
    ),
    Route(
        method="GET", path="/readyz", handler=ops.readyz, scope=None, summary="Whether requests are served",
        answer=answers.Health, statuses=(200, 503),
    ),
    Route(
        method="GET", path="/metrics", handler=ops.metrics, scope=ADMIN, summary="Prometheus text",
        media="text/plain",
    ),
    Route(
        method="GET", path="/openapi.json", handler=pages.openapi, scope=INFER, summary="This document",
        published=False,
    ),
    Route(method="GET", path="/", handler=pages.dashboard, scope=None, summary="The dashboard", published=False),
    Route(method="GET", path="/policies/{name}", handler=pages.policy, scope=None, summary="One policy's page",
          published=False),
    Route(method="GET", path="/policies/{name}/mornings", handler=pages_language.mornings, scope=None,
          summary="What each night changed", published=False),
    Route(method="GET", path="/policies/{name}/dreams", handler=pages_language.dreams, scope=None,
          summary="What was dreamt, and what became of it", published=False),
    Route(method="GET", path="/policies/{name}/conversations", handler=pages_language.conversations, scope=None,
          summary="What was said, and what came of it", published=False),
    Route(method="GET", path="/talk/{policy}", handler=pages_language.talk, scope=None,
          summary="Talk to a language policy", published=False),
    Route(method="GET", path="/replay", handler=pages.replay, scope=None, summary="The published failure, replayed",
          published=False),
    Route(method="POST", path="/login", handler=pages.login, scope=None, summary="Log in", published=False,
          body_type="application/x-www-form-urlencoded"),
    Route(method="POST", path="/logout", handler=pages.logout, scope=None, summary="Log out", published=False,
          body_type="application/x-www-form-urlencoded"),
    Route(method="GET", path="/static/{file}", handler=pages.static, scope=None, summary="Own scripts and styles",
          published=False),
)  # fmt: skip
