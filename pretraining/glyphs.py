"""The Noto Color Emoji glyph of each noun of the embedded model.

The table is explicit because Unicode names are irregular ("DROMEDARY CAMEL", "SPOUTING WHALE").
Where both a face and a whole animal exist, it has the one that is clearer at 64 pixels.
"""

from typing import Final

SEEN_ANIMALS: Final[dict[str, str]] = {
    "cat": "🐱", "dog": "🐶", "horse": "🐴", "monkey": "🐵", "rabbit": "🐰", "zebra": "🦓",
    "spider": "🕷", "bird": "🐦", "sheep": "🐑", "deer": "🦌", "cow": "🐮", "goat": "🐐",
    "lion": "🦁", "tiger": "🐯", "bear": "🐻", "raccoon": "🦝", "fox": "🦊", "wolf": "🐺",
    "lizard": "🦎", "beetle": "🪲", "ant": "🐜", "butterfly": "🦋", "fish": "🐟", "shark": "🦈",
    "whale": "🐳", "dolphin": "🐬", "squirrel": "🐿", "mouse": "🐭", "rat": "🐀", "snake": "🐍",
    "turtle": "🐢", "frog": "🐸", "chicken": "🐔", "duck": "🦆", "goose": "🪿", "bee": "🐝",
    "pig": "🐷", "turkey": "🦃", "fly": "🪰", "llama": "🦙", "camel": "🐪", "bat": "🦇",
    "gorilla": "🦍", "hedgehog": "🦔", "kangaroo": "🦘",
}  # fmt: skip
"""The 45 animals of arXiv 2305.13301, appendix D.6."""

UNSEEN_ANIMALS: Final[dict[str, str]] = {
    "panda": "🐼", "koala": "🐨", "hamster": "🐹", "penguin": "🐧", "owl": "🦉", "eagle": "🦅",
    "parrot": "🦜", "flamingo": "🦩", "peacock": "🦚", "swan": "🦢", "dove": "🕊",
    "crocodile": "🐊", "elephant": "🐘", "mammoth": "🦣", "rhinoceros": "🦏",
    "hippopotamus": "🦛", "giraffe": "🦒", "bison": "🦬", "moose": "🫎", "leopard": "🐆",
    "orangutan": "🦧", "sloth": "🦥", "otter": "🦦", "skunk": "🦨", "badger": "🦡",
    "beaver": "🦫", "seal": "🦭", "octopus": "🐙", "squid": "🦑", "jellyfish": "🪼",
    "lobster": "🦞", "crab": "🦀", "shrimp": "🦐", "snail": "🐌", "caterpillar": "🐛",
    "scorpion": "🦂", "ladybug": "🐞", "dinosaur": "🦕",
}  # fmt: skip

OBJECTS: Final[dict[str, str]] = {
    "apple": "🍎", "banana": "🍌", "cherry": "🍒", "strawberry": "🍓", "lemon": "🍋",
    "pear": "🍐", "pineapple": "🍍", "watermelon": "🍉", "tomato": "🍅", "carrot": "🥕",
    "mushroom": "🍄", "bread": "🍞", "cheese": "🧀", "hamburger": "🍔", "pizza": "🍕",
    "doughnut": "🍩", "cake": "🎂", "egg": "🥚", "teapot": "🫖", "coffee cup": "☕", "car": "🚗",
    "bus": "🚌", "bicycle": "🚲", "train": "🚂", "airplane": "✈", "rocket": "🚀",
    "sailboat": "⛵", "helicopter": "🚁", "tractor": "🚜", "castle": "🏰", "house": "🏠",
    "tree": "🌳", "cactus": "🌵", "sunflower": "🌻", "rose": "🌹", "guitar": "🎸", "drum": "🥁",
    "trumpet": "🎺", "violin": "🎻", "clock": "⏰", "umbrella": "☂", "key": "🔑", "book": "📕",
    "balloon": "🎈", "hat": "🎩", "crown": "👑", "chair": "🪑", "hammer": "🔨", "camera": "📷",
    "robot": "🤖",
}  # fmt: skip

NOUNS: Final[dict[str, str]] = SEEN_ANIMALS | UNSEEN_ANIMALS | OBJECTS
"""All 133 nouns, in a fixed order."""

ACTIVITIES: Final[dict[str, tuple[str, ...]]] = {
    "riding a bike": ("🚲",),
    "playing chess": ("♟", "♟"),
    "washing the dishes": ("🍽", "🧼"),
}
"""Activity → the glyphs below the animal. The three activities are the paper's (section 5.2)."""
