"""What the clerk knows: general facts, listed by hand, and the usual practice of an office, made up but consistent.

A relation is what can be asked of many subjects in the same words. ``{s}`` stands for the subject, ``{v}`` for the
value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One kind of fact. ``ask``: questions, the last of which is never trained on (an unseen wording)."""

    name: str
    ask: tuple[str, ...]
    state: tuple[str, ...]
    facts: Mapping[str, str]  # subject -> what is usually true
    more: tuple[str, ...] = ()  # further values that an office may give instead

    @property
    def values(self) -> tuple[str, ...]:
        """Everything that may be said of a subject, in a fixed order."""
        return tuple(dict.fromkeys((*self.facts.values(), *self.more)))


def _pairs(text: str) -> dict[str, str]:
    """ "France:Paris, Peru:Lima" as a mapping."""
    return {left.strip(): right.strip() for left, _, right in (one.partition(":") for one in text.split(","))}


CAPITALS = _pairs(
    "France:Paris, Germany:Berlin, Italy:Rome, Spain:Madrid, Portugal:Lisbon, Austria:Vienna, Greece:Athens, "
    "Norway:Oslo, Sweden:Stockholm, Finland:Helsinki, Denmark:Copenhagen, Poland:Warsaw, Hungary:Budapest, "
    "Romania:Bucharest, Bulgaria:Sofia, Ireland:Dublin, Iceland:Reykjavik, Belgium:Brussels, Russia:Moscow, "
    "Ukraine:Kyiv, Serbia:Belgrade, Croatia:Zagreb, Latvia:Riga, Estonia:Tallinn, Lithuania:Vilnius, "
    "Turkey:Ankara, Egypt:Cairo, Kenya:Nairobi, Ghana:Accra, Morocco:Rabat, Algeria:Algiers, Tunisia:Tunis, "
    "Senegal:Dakar, Ethiopia:Addis Ababa, Uganda:Kampala, Angola:Luanda, Japan:Tokyo, China:Beijing, "
    "India:New Delhi, Iran:Tehran, Iraq:Baghdad, Syria:Damascus, Lebanon:Beirut, Jordan:Amman, Thailand:Bangkok, "
    "Vietnam:Hanoi, Nepal:Kathmandu, Mongolia:Ulaanbaatar, Indonesia:Jakarta, Australia:Canberra, Canada:Ottawa, "
    "Mexico:Mexico City, Cuba:Havana, Peru:Lima, Chile:Santiago, Brazil:Brasilia, Argentina:Buenos Aires, "
    "Uruguay:Montevideo, Ecuador:Quito, Colombia:Bogota"
)
SYMBOLS = _pairs(
    "gold:Au, silver:Ag, iron:Fe, copper:Cu, lead:Pb, tin:Sn, zinc:Zn, carbon:C, oxygen:O, hydrogen:H, "
    "helium:He, nitrogen:N, sodium:Na, potassium:K, calcium:Ca, mercury:Hg, nickel:Ni, neon:Ne, sulfur:S, "
    "chlorine:Cl, iodine:I, magnesium:Mg, aluminium:Al, silicon:Si, uranium:U"
)
OPPOSITES = _pairs(
    "hot:cold, big:small, early:late, open:closed, full:empty, hard:soft, fast:slow, rich:poor, young:old, "
    "wet:dry, light:dark, high:low, strong:weak, long:short, wide:narrow, heavy:light, clean:dirty, loud:quiet, "
    "sharp:blunt, deep:shallow, sweet:sour, near:far, happy:sad, thick:thin, cheap:expensive, simple:complex, "
    "true:false, left:right, north:south, day:night"
)
FRENCH = _pairs(
    "dog:chien, cat:chat, house:maison, water:eau, bread:pain, book:livre, tree:arbre, sun:soleil, moon:lune, "
    "milk:lait, cheese:fromage, apple:pomme, fish:poisson, hand:main, head:tête, door:porte, window:fenêtre, "
    "street:rue, key:clé, horse:cheval, bird:oiseau, friend:ami, school:école, table:table, chair:chaise"
)
YOUNG = _pairs(
    "cat:kitten, dog:puppy, cow:calf, horse:foal, sheep:lamb, pig:piglet, goat:kid, hen:chick, duck:duckling, "
    "goose:gosling, bear:cub, deer:fawn, swan:cygnet, frog:tadpole, owl:owlet, kangaroo:joey"
)
COLOURS = _pairs(
    "a banana:yellow, grass:green, snow:white, coal:black, blood:red, the sky:blue, a carrot:orange, "
    "a plum:purple, a lemon:yellow, an elephant:grey, a raven:black, a tomato:red, chocolate:brown, "
    "a flamingo:pink, a frog:green, the sea:blue, cotton:white, a violet:purple"
)
KEPT = _pairs(
    "staplers:the supply room, envelopes:the mail room, spare keys:the front desk, toner:the copy room, "
    "old files:the archive, coffee filters:the kitchen, first aid kits:the reception, badges:the security desk, "
    "cables:the server room, umbrellas:the cloakroom, contracts:the legal safe, stamps:the mail room, "
    "chairs:the storage, mops:the broom cupboard, projectors:the media shelf, gloves:the workshop, "
    "manuals:the library, batteries:the supply room, flags:the storage, receipts:the cash office, "
    "notebooks:the supply room, ladders:the workshop, plates:the kitchen, tapes:the archive"
)
HANDLES = _pairs(
    "refunds:Priya, travel:Marta, hiring:Jonas, repairs:Olaf, invoices:Chen, parking:Rosa, complaints:Amir, "
    "training:Helga, the newsletter:Tomas, visitors:Nadia, payroll:Victor, orders:Elena, insurance:Samuel, "
    "cleaning:Bruno, security:Ingrid, the website:Kofi, catering:Lucia, contracts:Dmitri, printers:Hana, "
    "the archive:Pavel, safety:Yusuf, events:Carla, mail:Edgar, translations:Sofie"
)
FORMS = _pairs(
    "travel:T4, sick leave:S2, holidays:H1, new keys:K7, repairs:R3, expenses:E5, parking:P9, training:L6, "
    "overtime:O8, a new laptop:C2, a lost badge:B1, a visitor:V3, parental leave:M4, a transfer:F6, "
    "a desk move:D7, donations:N5, a complaint:Q1, a refund:G8"
)
EXTENSIONS = _pairs(
    "accounts:214, legal:377, sales:120, the kitchen:945, reception:100, security:911, the warehouse:662, "
    "payroll:248, marketing:531, the library:703, maintenance:486, the help desk:155, research:829, "
    "shipping:390, human resources:267, the director:101, the garage:574, the workshop:618"
)
DUE = _pairs(
    "the timesheet:Friday, the budget:the last of the month, the expense report:Monday, "
    "the weekly report:Thursday, the stock list:Tuesday, the rota:Wednesday, the tax file:the tenth, "
    "the newsletter:the first of the month, the rent:the fifth, the order list:Tuesday noon, "
    "the lunch order:ten o'clock, the minutes:the next day, the safety check:the end of the quarter, "
    "the review:June, the price list:January"
)
FLOORS = _pairs(
    "accounts:floor 2, legal:floor 5, sales:floor 1, marketing:floor 4, research:floor 6, "
    "the canteen:the ground floor, the library:floor 3, shipping:the basement, payroll:floor 2, "
    "security:the ground floor, the help desk:floor 3, the director:floor 7, human resources:floor 5, "
    "the gym:the basement, the terrace:the roof, the nursery:floor 1"
)
NAMES = (
    "Abel", "Agnes", "Alma", "Anton", "Astrid", "Basil", "Bianca", "Boris", "Cyrus", "Dalia", "Diego", "Edith",
    "Emil", "Farid", "Fiona", "Greta", "Hugo", "Ines", "Ivan", "Jada", "Karim", "Kira", "Lars", "Leila", "Luca",
    "Malik", "Mira", "Nils", "Noor", "Otto", "Petra", "Quinn", "Rafael", "Ruth", "Sasha", "Selma", "Stefan",
    "Tara", "Theo", "Uma", "Vera", "Viktor", "Wanda", "Xenia", "Yara", "Yves", "Zoe", "Zoltan",
)  # fmt: skip
PLACES = (
    "the blue cabinet", "the red box", "the tall shelf", "the glass room", "the old office",
    "the green drawer", "the white locker", "the back room", "the small attic", "the left cupboard",
    "the iron chest", "the corner desk", "the north hall", "the tower", "the lower shelf", "the meeting room",
    "the garden shed", "the side room",
)  # fmt: skip
DAYS = (
    "Monday noon", "Saturday", "the second of the month", "the end of the year", "nine o'clock", "March",
    "Sunday",
)  # fmt: skip


@cache
def relations() -> tuple[Relation, ...]:
    """Every relation. Real ones first, then the office's usual practice."""
    codes = tuple(f"{letter}{digit}" for letter in "ABWXYZ" for digit in range(10))
    numbers = tuple(str(number) for number in range(103, 990, 13))
    floors = tuple(f"floor {number}" for number in range(8, 30))
    rows: tuple[tuple[str, str, str, dict[str, str], tuple[str, ...]], ...] = (
        ("capital", "What is the capital of {s}?|Name the capital of {s}.|Which city is the capital of {s}?"
         "|{s} has which capital?|Which city does {s} have as its capital?",
         "the capital of {s} is {v}|{s} has {v} as its capital", CAPITALS, PLACES),
        ("symbol", "What is the chemical symbol of {s}?|Which symbol stands for {s}?|How do chemists write {s}?"
         "|Name the symbol for {s}.|Which letters stand for {s} in chemistry?",
         "the symbol of {s} is {v}|chemists write {s} as {v}", SYMBOLS, codes),
        ("opposite", "What is the opposite of {s}?|Name the opposite of {s}.|Which word means the reverse of {s}?"
         "|The opposite of {s} is what?|Which word is the opposite of {s}?",
         "the opposite of {s} is {v}|{v} is the opposite of {s}", OPPOSITES, NAMES),
        ("french", "What is {s} in French?|How do you say {s} in French?|Translate {s} into French."
         "|The French word for {s}?|What do the French call {s}?",
         "{s} is {v} in French|in French we say {v} for {s}", FRENCH, ()),
        ("young", "What is a young {s} called?|Name the young of a {s}.|How do we call the baby of a {s}?"
         "|A baby {s} is called what?|What is the baby of a {s} called?",
         "a young {s} is called {v}|we call the baby of a {s} {v}", YOUNG, NAMES),
        ("colour", "What colour is {s}?|Name the colour of {s}.|Which colour does {s} have?|{s} has which colour?"
         "|Which colour is {s}?",
         "the colour of {s} is {v}|{s} has the colour {v}", COLOURS, ("silver", "gold", "turquoise", "beige")),
        ("kept", "Where are the {s} kept?|Where do I find the {s}?|Which place has the {s}?|Where do we keep the {s}?"
         "|In which place do I find the {s}?",
         "the {s} are kept in {v}|you find the {s} in {v}", KEPT, PLACES),
        ("handles", "Who handles {s}?|Who is in charge of {s}?|Who takes care of {s}?|Whom do I ask about {s}?"
         "|Who is the person to ask about {s}?",
         "{v} handles {s}|{s} is a matter for {v}", HANDLES, NAMES),
        ("form", "Which form is for {s}?|What form do I need for {s}?|Name the form for {s}."
         "|Which form do I fill in for {s}?|For {s}, what form do I fill in?",
         "the form for {s} is {v}|for {s} we use form {v}", FORMS, codes),
        ("extension", "What is the extension of {s}?|How do I call {s}?|Which number has {s}?"
         "|Give me the number of {s}.|What number do I call for {s}?",
         "the extension of {s} is {v}|{s} has the number {v}", EXTENSIONS, numbers),
        ("due", "When is {s} due?|By when do we need {s}?|When do I hand in {s}?|What is the deadline for {s}?"
         "|By when do I hand in {s}?",
         "{s} is due {v}|the deadline for {s} is {v}", DUE, DAYS),
        ("floor", "Which floor is {s} on?|Where is {s}?|On which floor do I find {s}?|Where do I go for {s}?"
         "|To which floor do I go for {s}?",
         "{s} is on {v}|you find {s} on {v}", FLOORS, floors),
    )  # fmt: skip
    return tuple(
        Relation(name=name, ask=tuple(ask.split("|")), state=tuple(state.split("|")), facts=facts, more=more)
        for name, ask, state, facts, more in rows
    )
