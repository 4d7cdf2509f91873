"""What may not become a note: too long, hidden characters, secrets, other voices, orders to the system. Pure.

Patterns find what looks like these, not what means them: the guarantees are that a note reaches only those it is for,
and that it is quoted as data (`render`). The filters keep the rest from being repeated to anyone and learned.
"""

import math
import re
import unicodedata
from collections import Counter

MOST_CHARS = 2_000
# Joiners and marks that scripts need. Every other invisible character hides something from whoever reads the note.
_NEEDED = frozenset("\u200c\u200d\u200e\u200f\u00ad")
_CONTROL = frozenset(("Cc", "Cf", "Cs", "Co"))

_SECRETS = (
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bgh[oprsu]_[A-Za-z0-9]{20,}",
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bglpat-[A-Za-z0-9_-]{16,}",
    r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"\b[rs]k[-_](?:live|test|proj|ant|or)?[-_]?[A-Za-z0-9_-]{16,}",
    r"\bAIza[0-9A-Za-z_-]{30,}",
    r"\bhf_[A-Za-z0-9]{20,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.",
    r"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{16,}",
    r"(?i)\b(?:password|passwort|passwd|passphrase|mot de passe|contraseña|secret|api[ _-]?key|access[ _-]?key"
    r"|token|pin)(?:\s+(?:is|ist|es|est|lautet))?\s*(?:[:=]\s*|\s)(?=\S*\d)[^\s,;]{4,}",
    r"[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,100}:[^\s/@]{1,100}@",
)
_SECRET = re.compile("|".join(f"(?:{one})" if not one.startswith("(?i)") else f"(?i:{one[4:]})" for one in _SECRETS))
_LONG = re.compile(r"[A-Za-z0-9+/_=-]{24,}")
_DIGITS = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")

_VOICE = re.compile(
    r"<\|[^|<>]{0,40}\|?>|\|>|<｜[^｜<>]{0,40}｜>|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk)>"
    r"|\[(?:PAD|CLS|SEP|MASK|UNK|BOS|EOS)\]|<\/?(?:endoftext|im_sep)>"
    r"|<(?:start|end)_of_(?:turn|text|image)>|<(?:begin|end)_of_(?:text|sentence)>"
    r"|</?(?:tool_call|tool_response|think|system|assistant|im_start|im_end)>",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"(?m)^[\s>*#_-]{0,8}(?:system|assistant|user|human|developer|ai|instructions?)[\s*_]{0,4}(?:message|prompt)?[\s*_]{0,4}:"
    r"|^\s*#{2,}\s*(?:system|instructions?|response|input)\b",
    re.IGNORECASE,
)
_ORDERS = (
    # Verb, at most three words, what it is aimed at.
    r"\b(?:ignore|disregard|forget|override|bypass|skip|neglect)\b(?:\W+\w+){0,4}?\W+"
    r"(?:instructions?|rules?|prompts?|guidelines?|directions?|system|previous|prior|above|earlier|everything)\b",
    r"\b(?:ignoriere?|vergiss|missachte)\b(?:\W+\w+){0,4}?\W+(?:anweisung|regel|vorherig|alles|system)",
    r"\b(?:ignorez?|oubliez?|oublie)\b(?:\W+\w+){0,4}?\W+(?:instruction|consigne|précédent|règle)",
    r"\b(?:ignora|olvida|olvide)\b(?:\W+\w+){0,4}?\W+(?:instruccion|anterior|regla|todo)",
    r"\b(?:system|hidden|initial|developer)\s+(?:prompt|message|instructions?)\b",
    r"\b(?:reveal|print|repeat|show|leak)\b(?:\W+\w+){0,3}?\W+(?:prompt|instructions)\b",
    r"\byou are (?:now|no longer)\b",
    r"\b(?:from now on,? you|pretend (?:to be|you)|act as (?:if|an?\b.{0,30}\b(?:ai|model|assistant)))",
    r"\b(?:jailbreak|dan mode|developer mode|do anything now)\b",
    r"\bnew (?:system )?instructions?\b",
    r"\b(?:do not|don't|never) (?:tell|inform|mention this to|reveal this to) (?:the |any |an? )?users?\b",
)
_ORDER = re.compile("|".join(f"(?:{one})" for one in _ORDERS))


def fault(text: str) -> str:
    """Why a text may be no part of a note, in words for a listing; "" when it may. No reason repeats the text."""
    if not text.strip():
        return "it has no text"
    if len(text) > MOST_CHARS:
        return f"it is longer than {MOST_CHARS} characters: say it in fewer words"
    return content_fault(text)


def content_fault(text: str) -> str:
    """The same without a look at its length."""
    if any(unicodedata.category(one) in _CONTROL and one not in _NEEDED and one not in "\t\n\r" for one in text):
        return "it holds control or invisible characters: send plain text"
    plain = bare(text)
    if _VOICE.search(plain):
        return "it holds control tokens of a chat template: leave them out"
    if _ROLE.search(plain):
        return "it speaks in the name of a role (such as system:): say it as a plain sentence"
    if _ORDER.search(" ".join(plain.casefold().split())):
        return "it gives orders to the system instead of saying what is right"
    if _secret(plain):
        return "it looks like it holds a secret (a key, a password or a card number): leave that out"
    return ""


def bare(text: str) -> str:
    """A text in compatibility form (full-width letters and the like become plain ones) without invisible characters."""
    return "".join(one for one in unicodedata.normalize("NFKC", text) if unicodedata.category(one) != "Cf")


def _secret(text: str) -> bool:
    if _SECRET.search(text):
        return True
    if any(_random(found[0]) for found in _LONG.finditer(text)):
        return True
    return any(_card("".join(filter(str.isdigit, found[0]))) for found in _DIGITS.finditer(text))


def _random(word: str) -> bool:
    """Whether a long word looks drawn at random: hexadecimal, or mixed letters and digits of over 3.5 bits each."""
    digits, letters = any(map(str.isdigit, word)), any(map(str.isalpha, word))
    if re.fullmatch(r"[0-9a-fA-F]{32,}", word):
        return digits and letters
    mixed = digits and any(map(str.islower, word)) and any(map(str.isupper, word))
    shares = [count / len(word) for count in Counter(word).values()]
    return mixed and -sum(share * math.log2(share) for share in shares) > 3.5


def _card(digits: str) -> bool:
    """Luhn's check: every second digit from the right doubled, digits summed, divisible by ten (ISO/IEC 7812-1)."""
    doubled = [int(one) * (1 + at % 2) for at, one in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(sum(divmod(one, 10)) for one in doubled) % 10 == 0
