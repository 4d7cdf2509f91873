"""The families of the code environment, by name: what is asked, and the reference's last line."""

from __future__ import annotations

from random import Random

from dayjob.practice.environments.code_problems import (
    Family,
    Problem,
    draw_numbers,
    draw_text,
    fixed,
    over_counts,
    over_letters,
    over_numbers,
    over_range,
    over_words,
)


def _numbers(rng: Random, size: int) -> tuple[list[int]]:
    return (draw_numbers(rng, size),)


def _text(rng: Random, size: int) -> tuple[str]:
    return (draw_text(rng, size),)


def _word(rng: Random, size: int) -> tuple[str]:
    """Often a palindrome, which words seldom are."""
    half = "".join(rng.choice("abc") for _ in range(size // 2))
    whole = half + rng.choice(("", "x")) + half[::-1]
    return (whole if rng.random() < 0.5 else whole[1:] + "c",)


def _runs(rng: Random, size: int) -> tuple[str]:
    return ("".join(rng.choice("ab") * rng.randint(1, 3) for _ in range(size)),)


def _whole(rng: Random, size: int) -> tuple[int]:
    return (rng.randint(0, 9) if size == 0 else rng.randint(2, 10 ** min(size, 3)),)


def _two(rng: Random, size: int) -> tuple[list[int], list[int]]:
    return draw_numbers(rng, size), draw_numbers(rng, max(0, size - rng.randint(0, 2)))


FAMILIES: dict[str, Family] = {
    # over the numbers of a list
    "sum": over_numbers("sum", ask="Return the sum of the {those}.", result="sum({those})"),
    "count": over_numbers("count", ask="Return how many {those} there are.", result="len({those})"),
    "largest": over_numbers(
        "largest",
        ask="Return the largest of the {those}, or None if there are none.",
        result="max({those}, default=None)",
    ),
    "smallest": over_numbers(
        "smallest",
        ask="Return the smallest of the {those}, or None if there are none.",
        result="min({those}, default=None)",
    ),
    "first": over_numbers(
        "first",
        ask="Return the first of the {those}, or None if there are none.",
        result="next(iter({those}), None)",
    ),
    "last": over_numbers(
        "last",
        ask="Return the last of the {those}, or None if there are none.",
        result="next(iter({those}[::-1]), None)",
    ),
    "keep": over_numbers(
        "keep", ask="Return the list of the {those}, in the order of xs.", result="{those}", needs_one=True
    ),
    "drop-first": over_numbers(
        "drop-first", ask="Return the list of the {those}, without the first {k} of them.", result="{those}[{k}:]"
    ),
    "take": over_numbers(
        "take",
        ask="Return the list of the first {k} of the {those}, or of all if there are fewer.",
        result="{those}[:{k}]",
    ),
    "reverse": over_numbers("reverse", ask="Return the list of the {those}, last one first.", result="{those}[::-1]"),
    "sorted": over_numbers("sorted", ask="Return the list of the {those}, smallest first.", result="sorted({those})"),
    "descending": over_numbers(
        "descending", ask="Return the list of the {those}, largest first.", result="sorted({those}, reverse=True)"
    ),
    "distinct": over_numbers(
        "distinct",
        ask="Return the list of the different {those}, each once, smallest first.",
        result="sorted(set({those}))",
    ),
    "squares": over_numbers(
        "squares", ask="Return the list of the squares of the {those}.", result="[y * y for y in {those}]"
    ),
    "times": over_numbers(
        "times", ask="Return the list of the {those}, each multiplied by {k}.", result="[y * {k} for y in {those}]"
    ),
    "spread": over_numbers(
        "spread",
        ask="Return the difference between the largest and the smallest of the {those}, or 0 if there are none.",
        result="max({those}, default=0) - min({those}, default=0)",
    ),
    "second": over_numbers(
        "second",
        ask="Return the second largest of the different {those}, or None if there are fewer than two.",
        result="(sorted(set({those}))[-2:-1] or [None])[0]",
    ),
    "every": over_numbers(
        "every",
        ask="Return the list of those of the {those} that stand at positions 0, {k}, 2 * {k}, ... among them.",
        result="{those}[::{k}]",
    ),
    "chunks": over_numbers(
        "chunks",
        ask="Split the list of the {those} into lists of {k}, the last one being shorter if need be, and "
        "return the list of these lists.",
        result="[y[i:i + {k}] for y in [{those}] for i in range(0, len(y), {k})]",
    ),
    "running": over_numbers(
        "running",
        ask="Return the list of running sums of the {those}.",
        result="[sum(y[:i + 1]) for y in [{those}] for i in range(len(y))]",
    ),
    "common": over_numbers(
        "common",
        ask="Return the most frequent of the {those} (the smallest one, if several are), or None if there are none.",
        result="max(sorted(set({those})), key={those}.count, default=None)",
    ),
    # over the characters of a text
    "letters": over_letters("letters", ask="Return how many {those} there are.", result="len({those})"),
    "strip": over_letters("strip", ask="Return a string of the {those}.", result="''.join({those})"),
    "mask": over_letters(
        "mask", ask="Return s with '*' in place of all {those}.", result="''.join('*' if {if} else c for c in s)"
    ),
    "stutter": over_letters(
        "stutter", ask="Return s with all {those} written twice.", result="''.join(c + c if {if} else c for c in s)"
    ),
    "places": over_letters(
        "places",
        ask="Return the list of the positions, from 0, of the {those}.",
        result="[i for i, c in enumerate(s) if {if}]",
    ),
    "alphabet": over_letters(
        "alphabet",
        ask="Return a string of the different {those}, each once, in the order of their code points.",
        result="''.join(sorted(set({those})))",
    ),
    # over the words of a text
    "words": over_words("words", ask="Return how many {those} there are.", result="len({those})"),
    "longest": over_words(
        "longest",
        ask="Return the longest of the {those} (the first one, if several are), or '' if there are none.",
        result="max({those}, key=len, default='')",
    ),
    "initials": over_words(
        "initials", ask="Return a string of the first letters of the {those}.", result="''.join(w[0] for w in {those})"
    ),
    "mirror": over_words(
        "mirror",
        ask="Return the {those}, each spelled backwards, with a space between.",
        result="' '.join(w[::-1] for w in {those})",
    ),
    "title": over_words(
        "title",
        ask="Return the {those} in upper case, with '-' between.",
        result="'-'.join(w.upper() for w in {those})",
    ),
    "lengths": over_words(
        "lengths",
        ask="Return a dictionary from each of the {those} to its number of letters.",
        result="{w: len(w) for w in {those}}",
    ),
    # over the entries of a dictionary
    "total": over_counts("total", ask="Return the sum of the values of the {those}.", result="sum({those}.values())"),
    "keys": over_counts(
        "keys", ask="Return the list of the keys of the {those}, in alphabetical order.", result="sorted({those})"
    ),
    "best": over_counts(
        "best",
        ask="Return the key of the largest value of the {those} (the first in the alphabet, if several are), or "
        "None if there are none.",
        result="min({those}, key=lambda k: (-d[k], k), default=None)",
    ),
    "double": over_counts(
        "double",
        ask="Return a dictionary of the {those}, with the values doubled.",
        result="{k: 2 * v for k, v in {those}.items()}",
    ),
    # over a range
    "between": over_range("between", ask="Return the sum of the {those}.", result="sum({those})"),
    "among": over_range("among", ask="Return the list of the {those}.", result="{those}"),
    # without conditions
    "palindrome": fixed(
        "palindrome",
        parameters=("s",),
        ask="Return True if s reads the same backwards, else False.",
        lines="return s == s[::-1]",
        expression="s == s[::-1]",
        draw=_word,
    ),
    "digits": fixed(
        "digits",
        parameters=("n",),
        ask="Return the sum of the decimal digits of n, a whole number from 0 on.",
        lines="total = 0\nwhile n:\n    total += n % 10\n    n //= 10\nreturn total",
        expression="sum(map(int, str(n)))",
        draw=_whole,
    ),
    "divisors": fixed(
        "divisors",
        parameters=("n",),
        ask="Return the list of the whole numbers from 1 to n that divide n, smallest first; an empty list if n is 0.",
        lines="found = []\nfor d in range(1, n + 1):\n    if n % d == 0:\n        found.append(d)\nreturn found",
        expression="[d for d in range(1, n + 1) if n % d == 0]",
        draw=_whole,
    ),
    "prime": fixed(
        "prime",
        parameters=("n",),
        ask="Return True if n is a prime number, else False.",
        lines="if n < 2:\n    return False\nfor d in range(2, n):\n    if n % d == 0:\n        return False\n"
        "return True",
        expression="n > 1 and all(n % d for d in range(2, n))",
        draw=_whole,
    ),
    "rotate": fixed(
        "rotate",
        parameters=("xs",),
        ask="Return xs as a list that begins {k} places further on, with what was before that "
        "at its end. If xs has fewer than {k} numbers, return it as it is.",
        lines="head = xs[:{k}]\nif len(head) < {k}:\n    return xs\nreturn xs[{k}:] + head",
        expression="xs[{k}:] + xs[:{k}]",
        draw=_numbers,
    ),
    "rises": fixed(
        "rises",
        parameters=("xs",),
        ask="Return how many numbers in xs are greater than the one right before them.",
        lines="rises = 0\nfor i in range(1, len(xs)):\n    if xs[i] > xs[i - 1]:\n        rises += 1\nreturn rises",
        expression="sum(xs[i] > xs[i - 1] for i in range(1, len(xs)))",
        draw=_numbers,
    ),
    "common-to-both": fixed(
        "common-to-both",
        parameters=("xs", "ys"),
        ask="Return the list of the different numbers that are in both xs and ys, smallest first.",
        lines="found = []\nfor x in sorted(set(xs)):\n    if x in ys:\n        found.append(x)\nreturn found",
        expression="sorted(set(xs) & set(ys))",
        draw=lambda rng, size: (lambda xs: (xs, rng.sample(xs, size // 2) + draw_numbers(rng, size // 2)))(
            draw_numbers(rng, size)
        ),
    ),
    "products": fixed(
        "products",
        parameters=("xs", "ys"),
        ask="Return the sum of the products of the numbers of xs and ys at equal "
        "places; numbers without a partner count nothing.",
        lines="total = 0\nfor x, y in zip(xs, ys):\n    total += x * y\nreturn total",
        expression="sum(x * y for x, y in zip(xs, ys))",
        draw=_two,
    ),
    "runs": fixed(
        "runs",
        parameters=("s",),
        ask="Return the list of runs of equal characters in s, each as [character, length].",
        lines="found = []\nfor c in s:\n    if found and found[-1][0] == c:\n        found[-1][1] += 1\n    else:\n"
        "        found.append([c, 1])\nreturn found",
        expression="[[c, next((j for j in range(i, len(s)) if s[j] != c), len(s)) - i] for i, c in enumerate(s) "
        "if i == 0 or s[i - 1] != c]",
        draw=_runs,
    ),
    "tally": fixed(
        "tally",
        parameters=("s",),
        ask="Return a dictionary from each word of s, in lower case, to how often it is there.",
        lines="found = {}\nfor w in s.lower().split():\n    found[w] = found.get(w, 0) + 1\nreturn found",
        expression="{w: s.lower().split().count(w) for w in s.lower().split()}",
        draw=_text,
    ),
}


def problem(family: str, rng: Random, *, conditions: int) -> Problem:
    """One of a family, drawn."""
    return FAMILIES[family](rng, conditions)
