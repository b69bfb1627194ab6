"""The world that the embedded models draw: nouns with their emoji, activities and colours.

The glyphs are those of Noto Color Emoji. The table is explicit because Unicode names are irregular
("DROMEDARY CAMEL", "SPOUTING WHALE"). Where both a face and a whole animal exist, it has the one
that is clearer at 64 pixels.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ACTIVITIES",
    "COLORS",
    "NOUNS",
    "OBJECTS",
    "SEEN_ANIMALS",
    "TEXTURES",
    "UNSEEN_ANIMALS",
    "with_article",
]

SEEN_ANIMALS: Final[dict[str, str]] = {
    "cat": "🐱",
    "dog": "🐶",
    "horse": "🐴",
    "monkey": "🐵",
    "rabbit": "🐰",
    "zebra": "🦓",
    "spider": "🕷",
    "bird": "🐦",
    "sheep": "🐑",
    "deer": "🦌",
    "cow": "🐮",
    "goat": "🐐",
    "lion": "🦁",
    "tiger": "🐯",
    "bear": "🐻",
    "raccoon": "🦝",
    "fox": "🦊",
    "wolf": "🐺",
    "lizard": "🦎",
    "beetle": "🪲",
    "ant": "🐜",
    "butterfly": "🦋",
    "fish": "🐟",
    "shark": "🦈",
    "whale": "🐳",
    "dolphin": "🐬",
    "squirrel": "🐿",
    "mouse": "🐭",
    "rat": "🐀",
    "snake": "🐍",
    "turtle": "🐢",
    "frog": "🐸",
    "chicken": "🐔",
    "duck": "🦆",
    "goose": "🪿",
    "bee": "🐝",
    "pig": "🐷",
    "turkey": "🦃",
    "fly": "🪰",
    "llama": "🦙",
    "camel": "🐪",
    "bat": "🦇",
    "gorilla": "🦍",
    "hedgehog": "🦔",
    "kangaroo": "🦘",
}
"""The 45 animals of arXiv 2305.13301, appendix D.6."""

UNSEEN_ANIMALS: Final[dict[str, str]] = {
    "panda": "🐼",
    "koala": "🐨",
    "hamster": "🐹",
    "penguin": "🐧",
    "owl": "🦉",
    "eagle": "🦅",
    "parrot": "🦜",
    "flamingo": "🦩",
    "peacock": "🦚",
    "swan": "🦢",
    "dove": "🕊",
    "crocodile": "🐊",
    "elephant": "🐘",
    "mammoth": "🦣",
    "rhinoceros": "🦏",
    "hippopotamus": "🦛",
    "giraffe": "🦒",
    "bison": "🦬",
    "moose": "🫎",
    "leopard": "🐆",
    "orangutan": "🦧",
    "sloth": "🦥",
    "otter": "🦦",
    "skunk": "🦨",
    "badger": "🦡",
    "beaver": "🦫",
    "seal": "🦭",
    "octopus": "🐙",
    "squid": "🦑",
    "jellyfish": "🪼",
    "lobster": "🦞",
    "crab": "🦀",
    "shrimp": "🦐",
    "snail": "🐌",
    "caterpillar": "🐛",
    "scorpion": "🦂",
    "ladybug": "🐞",
    "dinosaur": "🦕",
}

OBJECTS: Final[dict[str, str]] = {
    "apple": "🍎",
    "banana": "🍌",
    "cherry": "🍒",
    "strawberry": "🍓",
    "lemon": "🍋",
    "pear": "🍐",
    "pineapple": "🍍",
    "watermelon": "🍉",
    "tomato": "🍅",
    "carrot": "🥕",
    "mushroom": "🍄",
    "bread": "🍞",
    "cheese": "🧀",
    "hamburger": "🍔",
    "pizza": "🍕",
    "doughnut": "🍩",
    "cake": "🎂",
    "egg": "🥚",
    "teapot": "🫖",
    "coffee cup": "☕",
    "car": "🚗",
    "bus": "🚌",
    "bicycle": "🚲",
    "train": "🚂",
    "airplane": "✈",
    "rocket": "🚀",
    "sailboat": "⛵",
    "helicopter": "🚁",
    "tractor": "🚜",
    "castle": "🏰",
    "house": "🏠",
    "tree": "🌳",
    "cactus": "🌵",
    "sunflower": "🌻",
    "rose": "🌹",
    "guitar": "🎸",
    "drum": "🥁",
    "trumpet": "🎺",
    "violin": "🎻",
    "clock": "⏰",
    "umbrella": "☂",
    "key": "🔑",
    "book": "📕",
    "balloon": "🎈",
    "hat": "🎩",
    "crown": "👑",
    "chair": "🪑",
    "hammer": "🔨",
    "camera": "📷",
    "robot": "🤖",
}

NOUNS: Final[dict[str, str]] = SEEN_ANIMALS | UNSEEN_ANIMALS | OBJECTS
"""All 133 nouns, in a fixed order."""

ACTIVITIES: Final[dict[str, tuple[str, ...]]] = {
    "riding a bike": ("🚲",),
    "playing chess": ("♟", "♟"),
    "washing the dishes": ("🍽", "🧼"),
}
"""Activity → the glyphs below the animal. The three activities are the paper's (section 5.2)."""

COLORS: Final[dict[str, tuple[int, int, int]]] = {
    "white": (250, 250, 250),
    "gray": (150, 150, 150),
    "black": (25, 25, 25),
    "red": (215, 50, 45),
    "orange": (245, 150, 40),
    "yellow": (245, 220, 80),
    "green": (70, 165, 80),
    "blue": (50, 100, 210),
    "purple": (130, 70, 175),
    "pink": (245, 165, 195),
    "brown": (130, 85, 50),
}
"""Colour → its mean level of red, green and blue, 0 … 255."""
TEXTURES: Final = ("striped", "checkered", "spotted")


def with_article(noun: str) -> str:
    """The noun with its indefinite article: "a cat", "an owl"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
