"""The contract battery: what every environment has to keep, shown on a handful of seeds.

An environment that is wrong teaches whatever its fault rewards, and nobody sees it in a loss curve. So each promise of
`practice.protocol` is tried here, and each check is itself known to fail on an environment that breaks it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dayjob.endings import DayjobError, EpisodeEnding, Invalid
from dayjob.practice.actor import RandomActor
from dayjob.practice.processes import Workers
from dayjob.practice.protocol import Action, Environment, Episode, Step, Task
from dayjob.practice.questions import MAX_SEED
from dayjob.practice.registry import make
from dayjob.practice.rollout import Lost, check_messages, check_step, draw_seed
from dayjob.practice.wire import step_json, task_json
from dayjob.records import Json

MakeEnvironment = Callable[[], Environment]
# What nobody can mean as an answer: it must never raise and never be rewarded in full.
NOISE = (
    "", " ", "\n\n", "\x00", "?", "...", "-", "{}", "[]", "null", "nan", "answer:", "<answer></answer>", "\ud800",
    "9" * 5_000, "x " * 3_000, "💥" * 50, "__import__('os')", "''; drop table", "<think>", "<think></think>",
    "<tool_call>", "<tool_call>{", "</tool_call>", "<tool_call>{}</tool_call>" * 40,
    '<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": "no_such_tool", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "\\ud800", "arguments": {"\\ud800": "\\udfff"}}</tool_call>',
    '<tool_call>{"name": "search", "arguments": {"query": "\\ud800"}}</tool_call>',
    "<tool_call>" + "[" * 5_000 + "</tool_call>",
    "call", "call ", "call no_such_tool", "call search", "call search query=", "call no_such_tool x=\u2028",
)  # fmt: skip
# What somebody who has not read the task might say: no one of them may solve most tasks.
GUESSES = ("0", "1", "2", "yes", "no", "true", "false", "none", "a", "done", "I do not know")
RANDOM_DRAWS = 3
MIN_GUESSED = 6  # tasks, for "most" to mean something


class Unsound(DayjobError):
    """An environment breaks a promise; ``check`` names which."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """An episode as it went: ``told`` is everything the environment said, as bytes."""

    task: Task
    steps: tuple[Step, ...]
    told: bytes

    @property
    def reward(self) -> float:
        """The episode's, 0 before its ending."""
        last = self.steps[-1].reward if self.steps else None
        return 0.0 if last is None else last.value


async def check_environment(
    make_env: MakeEnvironment,
    *,
    seeds: Sequence[int],
    workers: Workers | None = None,
    has_reference: bool = True,
    mutations: bool = True,
    noise: Sequence[str] = NOISE,
) -> None:
    """Try every promise of the protocol on the tasks of ``seeds``, at least two. Raises `Unsound` for a broken one.

    With fewer than six, whether a fixed guess solves most of them is left out.

    ``workers`` are the other process that must say the same bytes; without them that one check is left out.
    ``has_reference`` False: an environment that knows no solutions. ``mutations`` False leaves its neighbours out.
    """
    if len(seeds) < 2:
        raise Invalid("name at least two seeds, to see that their tasks differ", param="seeds")
    environment = make_env()
    check_spec(environment, make_env)
    before = [await _play_all(environment, seed) for seed in seeds]
    check_variety(before)
    await check_seeds(environment)
    await check_determinism(environment, make_env, seeds=seeds, before=before)
    await check_apart(environment, seeds)
    if workers is not None:
        await check_process(environment, seeds, workers=workers)
    if has_reference:
        await check_reference(environment, seeds)
    await check_noise(environment, seeds, noise=noise)
    if len(seeds) >= MIN_GUESSED:
        await check_guesses(environment, seeds)
    await check_end(environment, seeds[0])
    if mutations:
        await check_mutations(environment, seeds[:2], has_reference=has_reference)
    if [await _play_all(environment, seed) for seed in seeds] != before:
        raise Unsound("immutable", "the environment says something else after other episodes were played")


def check_spec(environment: Environment, make_env: MakeEnvironment) -> None:
    """The spec is JSON, names the environment, and makes one with the same spec."""
    spec = environment.spec
    try:
        again = json.loads(json.dumps(spec, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise Unsound("spec", f"it is no JSON: {error}") from error
    if again != spec:
        raise Unsound("spec", "it is not the same after a round through JSON: lists instead of tuples, texts as keys")
    if not isinstance(spec.get("env"), str):
        raise Unsound("spec", 'it lacks "env", the environment\'s name')
    if make_env().spec != spec:
        raise Unsound("spec", "two environments that were made alike have different specs")
    if make(again).spec != spec:
        raise Unsound("spec", "an environment that is made from the spec has another one")


def check_variety(played: Sequence[Played]) -> None:
    """Seeds are different tasks."""
    if len({one.told for one in played}) < 2:
        raise Unsound("seeds", "all of these seeds are one and the same task")


async def check_seeds(environment: Environment) -> None:
    """Every seed from 0 to 2**63 - 1 is a task, and nothing else is."""
    for seed in (0, MAX_SEED):
        episode = environment.reset(seed)
        _check_task(episode.task)
        await episode.close()
    try:
        environment.reset(-1)
    except Invalid:
        return
    raise Unsound("seeds", "reset(-1) must raise Invalid")


async def check_determinism(
    environment: Environment, make_env: MakeEnvironment, *, seeds: Sequence[int], before: Sequence[Played]
) -> None:
    """The same seed and actions, the same bytes: again, made anew, and made from the spec."""
    for other in (environment, make_env(), make(environment.spec)):
        for seed, first in zip(seeds, before, strict=True):
            if await _play_all(other, seed) != first:
                raise Unsound("deterministic", f"seed {seed} and the same actions did not give the same bytes twice")


async def check_apart(environment: Environment, seeds: Sequence[int]) -> None:
    """Episodes that are played turn about do not disturb each other."""
    order = (seeds[0], seeds[0], seeds[1])
    episodes = [environment.reset(seed) for seed in order]
    plans = [_tour(environment, seed) for seed in order]
    told: list[list[Step]] = [[] for _ in order]
    for turn in range(max(len(actions) for actions in plans)):
        for episode, actions, steps in zip(episodes, plans, told, strict=True):
            if turn < len(actions) and not (steps and steps[-1].ending):
                steps.append(await episode.step(actions[turn]))
    for seed, episode, actions, steps in zip(order, episodes, plans, told, strict=True):
        await episode.close()
        if tuple(steps) != (await play(environment, seed, actions=actions)).steps:
            raise Unsound("apart", "an episode goes otherwise while another one is played beside it")


async def check_process(environment: Environment, seeds: Sequence[int], *, workers: Workers) -> None:
    """Another process says the same bytes."""
    for seed in seeds:
        actions = _tour(environment, seed)
        here = await play(environment, seed, actions=actions)
        try:
            episode = await workers.begin(environment, seed, step_timeout_s=60.0)
            there = await _converse(episode, actions)
            await episode.close()
        except Lost as lost:
            raise Unsound("process", f"seed {seed} fails in another process: {lost}") from lost
        if here.told != there.told:
            raise Unsound("process", f"seed {seed} says something else in another process")


async def check_reference(environment: Environment, seeds: Sequence[int]) -> None:
    """The reference solves its task with a reward of 1, within the turns."""
    for seed in seeds:
        actions = environment.reference(seed)
        if not actions:
            raise Unsound("reference", f"seed {seed} has none")
        played = await play(environment, seed, actions=actions)
        if not played.steps[-1].ending:
            raise Unsound("reference", f"seed {seed} is not over after its reference solution")
        if played.reward != 1 or played.steps[-1].ending is not EpisodeEnding.DONE:
            raise Unsound("reference", f"seed {seed}: a reward of {played.reward}, ending {played.steps[-1].ending}")
        if len(played.steps) < len(actions):
            raise Unsound("reference", f"seed {seed} was over before its reference solution was")


async def check_noise(environment: Environment, seeds: Sequence[int], *, noise: Sequence[str]) -> None:
    """Nonsense, the empty answer and the task's own words never raise, always come to an end, and never solve."""
    for place, text in enumerate(noise):
        await _check_worthless(environment, seeds[place % len(seeds)], text=text)
    for seed in seeds:
        episode = environment.reset(seed)
        said = [str(message.get("content")) for message in episode.task.messages]
        await episode.close()
        for text in {said[-1], " ".join(said)}:
            await _check_worthless(environment, seed, text=text)


async def check_guesses(environment: Environment, seeds: Sequence[int]) -> None:
    """No fixed answer, nor random words of the task, solve more than half of the tasks."""
    for text in GUESSES:
        solved = [await _repeat(environment, seed, text=text) for seed in seeds]
        if sum(one.reward == 1 for one in solved) > len(seeds) / 2:
            raise Unsound("guesses", f"saying {text!r} solves most tasks")
    won = 0
    for seed in seeds:
        for draw in range(RANDOM_DRAWS):
            won += (await _stumble(environment, seed, draw=draw)).reward == 1
    if won > len(seeds) * RANDOM_DRAWS / 2:
        raise Unsound("guesses", "random words of the task solve most tasks")


async def check_end(environment: Environment, seed: int) -> None:
    """Nothing follows an ending; an episode may be closed at any time, and more than once."""
    for actions in ([], [Action(text="")], _tour(environment, seed)):
        episode = environment.reset(seed)
        played = await _converse(episode, actions)
        if played.steps and played.steps[-1].ending:
            try:
                await episode.step(Action(text="once more"))
            except Invalid:
                pass
            else:
                raise Unsound("end", "a step after the ending must raise Invalid")
        try:
            await episode.close()
            await episode.close()
        except Exception as error:
            raise Unsound("close", f"closing raised {type(error).__name__}: {error}") from error


async def check_mutations(environment: Environment, seeds: Sequence[int], *, has_reference: bool) -> None:
    """Every mutation is another environment, can be made from its spec, and keeps the main promises itself."""
    found = environment.mutations()
    if len({one.name for one in found}) < len(found):
        raise Unsound("mutations", "two of them have the same name")
    for one in found:
        if one.spec == environment.spec:
            raise Unsound("mutations", f"{one.name!r} changes nothing")
        try:
            made = make(one.spec)
        except Invalid as error:
            raise Unsound("mutations", f"{one.name!r} cannot be made: {error}") from error
        if made.spec != one.spec:
            raise Unsound("mutations", f"{one.name!r} is not made as its spec says")
        for seed in seeds:
            if await _play_all(made, seed) != await _play_all(make(one.spec), seed):
                raise Unsound("mutations", f"{one.name!r} is not deterministic")
        if has_reference:
            await check_reference(made, seeds)
        await _check_worthless(made, seeds[0], text="")


async def play(environment: Environment, seed: int, *, actions: Sequence[Action]) -> Played:
    """An episode with given actions, to its ending or theirs. Raises `Unsound` for a step that breaks the protocol."""
    episode = environment.reset(seed)
    try:
        return await _converse(episode, actions)
    finally:
        await episode.close()


async def _converse(episode: Episode, actions: Sequence[Action]) -> Played:
    task = episode.task
    _check_task(task)
    steps: list[Step] = []
    for action in actions:
        try:
            step = await episode.step(action)
        except Exception as error:
            short = action.text[:60].encode("unicode_escape").decode()
            raise Unsound("actions", f"{short!r} raised {type(error).__name__}: {error}") from error
        check_said(step)
        steps.append(step)
        if step.ending:
            break
        if len(steps) >= task.max_turns:
            raise Unsound("turns", f"not over after its {task.max_turns} turns")
    told: list[Json] = [task_json(task), *(step_json(step) for step in steps)]
    return Played(task=task, steps=tuple(steps), told=_bytes(told))


def check_said(step: Step) -> None:
    """The reward comes with the ending and only then, numbers are within [0, 1], and there is something to answer."""
    try:
        check_step(step)
    except Invalid as error:
        raise Unsound(error.param or "reward", str(error)) from error
    if step.ending and step.messages:
        raise Unsound("messages", "nothing is said with an ending: nobody would answer it")
    if not step.ending and not step.messages:
        raise Unsound("messages", "a step that does not end the episode has to say something")
    _bytes(list(step.messages))


def _check_task(task: Task) -> None:
    if not task.messages or task.messages[-1].get("role") not in ("user", "tool"):
        raise Unsound("messages", "a task ends with a message of the user or of a tool")
    if task.max_turns < 1 or task.answer_tokens < 1:
        raise Unsound("turns", "a task allows at least one turn of at least one token")
    try:
        check_messages(task.messages)
    except Invalid as error:
        raise Unsound("messages", str(error)) from error
    _bytes([*task.messages, *task.tools])


def _bytes(told: object) -> bytes:
    try:
        return json.dumps(told, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise Unsound("messages", f"what the environment says is no JSON in UTF-8: {error}") from error


async def _play_all(environment: Environment, seed: int) -> Played:
    return await play(environment, seed, actions=_tour(environment, seed))


def _tour(environment: Environment, seed: int) -> list[Action]:
    """The reference solution where there is one, else a wrong answer again and again."""
    return list(environment.reference(seed)) or [Action(text="?")] * 3


async def _repeat(environment: Environment, seed: int, *, text: str) -> Played:
    episode = environment.reset(seed)
    turns = episode.task.max_turns
    await episode.close()
    return await play(environment, seed, actions=[Action(text=text)] * turns)


async def _check_worthless(environment: Environment, seed: int, *, text: str) -> None:
    played = await _repeat(environment, seed, text=text)
    short = text[:60].encode("unicode_escape").decode()
    if played.reward == 1:
        raise Unsound("noise", f"{short!r} solves the task of seed {seed}")


async def _stumble(environment: Environment, seed: int, *, draw: int) -> Played:
    """Random words of the task, until it ends."""
    episode = environment.reset(seed)
    messages, turns = episode.task.messages, episode.task.max_turns
    await episode.close()
    said = [
        await RandomActor().act(messages, tools=(), max_tokens=64, seed=draw_seed(seed, draw, turn))
        for turn in range(turns)
    ]
    return await play(environment, seed, actions=[Action(text=one.text) for one in said])
