"""Texts that tokenizers trip over, the same in every run. None holds a whole special token of any model."""

import random
import unicodedata

COUNT = 350

CODE = [
    "def f(x):\n    if x:\n        for i in range(3):\n            print(f'{i:>8}')\n\t\treturn None\n",
    "fn main() {\n\tlet v: Vec<&'static str> = vec![];\n\t\t\t// nothing\n}\n\n\n",
    "\tif (a&&b||!c) {\r\n\t\treturn a<<2>>>1;\r\n\t}\r\n",
    "SELECT * FROM \"t\" WHERE a='it''s' AND b<>3;--comment",
    "<div class=\"a b\">&nbsp;<!-- x --><br/></div>",
    "#include <stdio.h>\nint main(void){printf(\"%d\\n\",1);}",
    "x = {'a': [1, 2.5e-10, 0xFF], \"b\": None}  # ok",
    "                                        return\n" * 3,
    "\n".join(" " * depth + "x" for depth in range(0, 40, 3)),
    "$ ls -la | grep '^d' > /dev/null 2>&1 && echo \"$?\"",
    "```python\nprint('hi')\n```\n\n- a\n  - b\n    - c\n",
    "{{ messages[0]['content'] }}{% if x %}{# y #}{% endif %}",
]

SENTENCES = [
    "I'm sure they'll say it's HERS, they'd've SAID'VE, DON'T, Can'T, 'tis, rock 'n' roll, o'clock's, I'Ll, YOU'RE, we'Re",
    "‘quoted’ “text” it’s l’été d’une c’est — dash – hyphen-ated…",
    "https://user:pass@example.com:8080/a/b%20c/d.html?q=1&r=%C3%A9#frag me@mail.example.org /usr/local/bin C:\\Windows\\System32",
    "1234567890 12 345 6,789.01 0x1F 1e-9 ３４５ ٣٤٥ ४५६ Ⅷ ½ ²³ ①② 1st 2nd 100% $5.00 €9 £3 10:30 2026-11-27",
    "Grüße aus Zürich, ÄÖÜ äöü ß ẞ, naïve façade, Ångström, œuvre, Łódź, İstanbul ısı, ﬁancé ﬂ ŉ ǆ",
    "Γειά σου Κόσμε ΣΊΣΥΦΟΣ σίσυφος", "Привет, мир! Ёлка ёж ЩЪЫЭ", "שָׁלוֹם עוֹלָם, מה שלומך?", "مرحبا بالعالم، كيف حالك؟ ۱۲۳ لا إله ﷺ",
    "你好，世界！今天天气很好。中文English混排123个。「引用」《书》", "こんにちは、世界！カタカナ ﾊﾝｶｸ ゔ がぎぐ 々〆ヶ", "안녕하세요 세계! 한국어 ㄱㄴㄷ ㅏㅑㅓ",
    "สวัสดีชาวโลก ภาษาไทยไม่มีวรรค ๑๒๓ กำ น้ำ", "नमस्ते दुनिया क्षत्रिय ज्ञान हिन्दी", "வணக்கம் உலகம்", "မင်္ဂလာပါ", "ជំរាបសួរ", "გამარჯობა", "Բարեւ", "ሰላም", "ꓡꓲꓢꓴ ᏣᎳᎩ ᓄᓇᕗᑦ 𐌰𐌱𐌲 𒀀𒀁 𓀀𓀁 𠀀𠀁𪜀",
    "👩‍👩‍👧‍👦 👋🏽 🤷🏿‍♀️ 🏳️‍🌈 🇨🇭🇫🇷 1️⃣ ❤️‍🔥 🫠 ☺︎ ☺️ 🧑🏻‍🚀", "a\u0301e\u0301 \u00e9 o\u0308\u0304 \u1e69 s\u0323\u0307 s\u0307\u0323 Z͑ͫ̓ͪ̂ͫ̽͏̴̙A̴̵̜̰L̲G̡", "\u1112\u1161\u11ab\u1100\u1173\u11af \u115f\u1160 \uac00\u11a8 \u3131\u314f",
    "half of markers: <|im_ start|> <|im_end <|im_end| |im_end|> <s </ s> [IN ST] [/INS <|eot_ id|> <start_of_ turn> <｜User <|begin_of_ text|> <0x0A <0x41 > <|", "▁ ▁▁ a▁b Ġ ĠĠ Ċ ĉ ## ##ing @@ </w> <0x20> ⁇ � \ufffd",
]

BLANKS = ["\u0009", "\u000b", "\u000c", "\u0085", "\u00a0", "\u1680", "\u180e", "\u2000", "\u2003", "\u2009", "\u200a", "\u200b", "\u200c", "\u200d", "\u2028", "\u2029", "\u202f", "\u205f", "\u2060", "\u3000", "\ufeff", "\u00ad", "\u034f", "\u061c", "\u200e", "\u200f", "\u202e", "\u2066", "\ufe0f", "\U000e0061"]


def nasty():
    """The texts, each different."""
    made = ["", " ", "\n", "\t", "a", " a", "a ", "é", "e\u0301", "0", "\x00", "\x7f", "\ufffe", "\U0010ffff", "\ue000\uf8ff\U000f0000", "'", "''s", "\r", "\r\n", "\n\r\n"]
    made += SENTENCES + CODE
    made += [" " * count + "x" for count in range(1, 41)]
    made += [f"a{' ' * count}b" for count in (2, 3, 4, 7, 8, 15, 16, 17, 24, 31, 32, 33, 40, 63, 64, 65, 100)]
    made += ["\n" * count + "x" for count in (2, 3, 4, 5, 8, 16, 17)] + ["\t" * count + "x" for count in (2, 3, 4, 8, 16, 17)] + [" \n" * 9, "\n " * 9, " \t" * 9, "\r\n" * 5 + " x", "x \n\n  \n y", "x\n\n\n   ", "   \n\n", "\t \n\tx\t\n"]
    made += [f"a{blank}b {blank}{blank} {blank}c{blank}" for blank in BLANKS]
    made += [letter * count for letter, count in (("a", 300), ("A", 97), ("0", 50), ("=", 129), ("-", 80), ("_", 66), (".", 40), ("!", 33), ("é", 70), ("中", 90), ("ก", 60), ("😀", 40), ("#", 25), ("\u0301", 30), ("▁", 20), ("/", 64), ("*", 77), ("ha", 90), ("\\n", 21), ("\x01", 12))]
    made += ["\n".join(SENTENCES[:6]), "".join(chr(code) for code in range(1, 128)), "".join(chr(code) for code in range(128, 384)), "".join(chr(code) for code in range(0x2000, 0x2070))]
    made += categories()
    chance = random.Random(20261127)
    pieces = [*SENTENCES, *CODE, *BLANKS, *categories()]
    seen, kept = set(), []
    while len(kept) < COUNT:
        if not made:
            made = ["".join(cut(chance, pieces) for _ in range(chance.randint(2, 7)))]
        text = made.pop(0)
        if text not in seen:
            seen.add(text)
            kept.append(text)
    return kept


def cut(chance, pieces):
    piece = chance.choice(pieces)
    start = chance.randrange(len(piece))
    glue = chance.choice(["", "", " ", "  ", "\n", "\t", ", ", "'", "-", "1", " " * chance.randint(3, 20)])
    text = piece[start : start + chance.randint(1, 30)]
    return glue + unicodedata.normalize(chance.choice(["NFC", "NFD"]), text)


def categories():
    """Twelve characters of each of Unicode's general categories, with and without blanks between them."""
    chance = random.Random(7)
    by_category = {}
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue  # Half of a pair is no text.
        by_category.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    made = []
    for category in sorted(by_category):
        some = chance.sample(by_category[category], min(12, len(by_category[category])))
        made.append("".join(some[:6]) + " " + " ".join(some[6:]))
    return made


def conversations():
    """Twenty-four conversations of such texts: of one question, with a system message, and of several turns."""
    chance = random.Random(24)
    some = chance.sample([text for text in nasty() if text.strip()], 64)
    take = lambda role: {"role": role, "content": some.pop()}
    shapes = [["user"]] * 8 + [["system", "user"]] * 8 + [["user", "assistant", "user"]] * 4 + [["system", "user", "assistant", "user"]] * 4
    return [[take(role) for role in shape] for shape in shapes]


if __name__ == "__main__":
    for text in nasty():
        print(ascii(text))
