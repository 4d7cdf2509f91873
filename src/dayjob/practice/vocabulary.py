"""Words and names that tasks are made of. What a seed draws from a list depends on its order: only ever append."""

from __future__ import annotations

from random import Random

_WORDS_TEXT = """
ant apple arrow autumn bag baker banana basket bath beach bear bell bench berry bird blanket boat book bottle bowl box
branch bread brick bridge brother brush bucket butter button cabin cake camel candle carpet castle cat chair cheese
cherry circle clock cloud coat coffee coin copper corn cotton cow cream crown cup curtain dance daughter desert desk
dinner doctor dog door dragon dream dress drum duck eagle ear earth egg elbow engine evening eye fabric face family
farmer feather fence field finger fire fish flag floor flower forest fork fox friend frog fruit garden gate ghost
giant glass glove goat gold grape grass guitar hair hammer hand harbour hat heart hill honey horse hotel house ice
insect island jacket jar jewel juice kettle key kitchen kite knee knife ladder lake lamp leaf leather lemon letter
library lion lock market meadow melon metal milk mirror money monkey moon morning mother mountain mouse mouth music
nail needle nest night nose number oak ocean office olive onion orange oven owl paint palace paper parrot peach pear
pencil pepper piano picture pillow pilot planet plate pocket potato prince pumpkin queen rabbit rain ribbon rice ring
river road rock roof room rope rose salt sand school scissors sea seed shadow sheep shell ship shirt shoe silver
sister sky snow soap soldier song soup spider spoon spring square stable star station stone storm story street sugar
summer sun table tailor tea teacher temple tent thread thumb tiger tomato tooth tower town train tree turtle valley
village violin wagon wall water weather wheel whistle wind window wing winter witch wolf wood wool yard zebra
"""
WORDS = tuple(_WORDS_TEXT.split())
_FIRST_NAMES_TEXT = """
Ada Alba Aldo Amos Anton Arno Astrid Basil Bea Bruno Carla Cedric Clara Conrad Cora Dario Delia Edgar Edith Elsa Emil
Enid Ezra Fern Flora Gideon Greta Hector Hilda Hugo Ina Iris Ivo Jana Jasper Joan Jules Kara Kurt Lena Linus Lotte
Magnus Mara Milo Mona Nils Nora Odin Olga Orla Otto Paula Percy Petra Quinn Ralph Rhea Rosa Ruth Selma Silas Stella
Sven Tessa Theo Thora Ursula Vera Victor Wanda Wilma Xaver Yara Yves Zelda
"""
FIRST_NAMES = tuple(_FIRST_NAMES_TEXT.split())
KINDS = (
    "Mill",
    "Bridge",
    "Tower",
    "Museum",
    "Library",
    "Theatre",
    "Chapel",
    "Inn",
    "Lighthouse",
    "Brewery",
    "Observatory",
    "Station",
)
_STARTS_TEXT = """
Al Bar Bel Bran Bren Cal Car Clar Cor Dal Del Dor Dun El Fal Fen Gar Glen Gor Hal Har Hol Ilm Kel Kes Kin Lan Lar Lin
Lor Mal Mar Mel Mor Nor Oak Or Pel Pen Quar Ral Ros Sal Sel Sten Tal Tam Thor Tor Ul Val Ver Wal Wes Wil Yar Zel
"""
_STARTS = tuple(_STARTS_TEXT.split())
_MIDDLES = ("", "a", "an", "ber", "den", "e", "en", "i", "in", "ling", "o", "on", "ster", "ta", "u", "ver")
_TOWN_ENDS = ("bach", "bourne", "by", "dale", "ford", "ham", "holm", "hurst", "leigh", "mouth", "stead", "ton", "wick")
_FAMILY_ENDS = ("berg", "er", "feld", "ic", "kins", "lund", "man", "mont", "nova", "ov", "quist", "sen", "son", "sky")
_RIVER_ENDS = ("a", "ach", "ane", "ere", "isk", "nau", "ock", "une", "wen", "yss")


def draw_towns(rng: Random, count: int) -> list[str]:
    """Names of towns, all different; at most some 11,000."""
    return _joined(rng, count, ends=_TOWN_ENDS)


def draw_families(rng: Random, count: int) -> list[str]:
    """Family names, all different; at most some 12,000."""
    return _joined(rng, count, ends=_FAMILY_ENDS)


def draw_rivers(rng: Random, count: int) -> list[str]:
    """Names of rivers, all different; at most some 8,000."""
    return _joined(rng, count, ends=_RIVER_ENDS)


def _joined(rng: Random, count: int, *, ends: tuple[str, ...]) -> list[str]:
    # Some joints meet in one name ("Al"+"an"+"ane" is "Al"+"a"+"nane"): draw more, keep the first of each.
    size = len(_STARTS) * len(_MIDDLES) * len(ends)
    drawn = rng.sample(range(size), min(size, count + count // 8 + 16))
    names = []
    for number in drawn:
        rest, end = divmod(number, len(ends))
        start, middle = divmod(rest, len(_MIDDLES))
        names.append(_STARTS[start] + _MIDDLES[middle] + ends[end])
    return list(dict.fromkeys(names))[:count]
