"""Writes cuts.json: how Hugging Face's library cuts texts by the patterns that llama.cpp names.

Usage: pip install tokenizers==0.23.3
       python cuts.py LLAMA_CPP/src/llama-vocab.cpp cuts.json

The patterns are read from llama.cpp, which is not ours to pass on; where its source also has a comment with the original
pattern of `tokenizer.json`, that one counts. Kimi K2's stands in none: it is the one of the model's own tokenizer. A cut
is written as the number of characters of each piece.
"""

import json
import re
import sys

from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence, Split

CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
UPPER, LOWER = (rf"[\p{{L{case}}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}&&[^\p{{Han}}]]" for case in "ul")
LOWER = LOWER.replace(r"\p{Lt}", "")
KIMI = "|".join(
    [
        r"[\p{Han}]+",
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)

# Embeddings, DNA, and languages' own models of another time. Two ask for more than a tokenizer's limits allow (jais-2) or
# split at places without text (superbpe).
LEFT_OUT = {
    "bloom", "chameleon", "f2llmv2", "gpt3-finnish", "granite-embed-multi-311m", "granite-embed-multi-97m", "jais-2",
    "jina-de", "jina-es", "jina-v1-en", "jina-v2-code", "jina-v2-de", "jina-v2-es", "jina-v5-nano", "mmbert", "modern-bert",
    "poro-chat", "roberta-bpe", "superbpe", "ufakzeka", "viking", "whitespace",
}
# Without cuts: merged as a whole, like SentencePiece's.
WHOLE = {"gemma4", "sarvam-moe"}

CORPUS = [
    "1 12 123 1234 12345 123456 1234567 12345678 123456789 x1234.56,789 0x1F 1e-9 ３４５ ٣٤٥ Ⅷ ½ ²³ ①②",
    "I'm sure they'll say it's HERS, they'd've SAID'VE, DON'T, Can'T, 'tis, o'clock's, I'Ll, YOU'RE, we'Re, it'sall 'Tis\n'tis ’s it’S 'ſ",
    "camelCase HTTPServer iPhone McDonald's ÉcoleÉlan éÉ aBC ǅungla Ǆa ĳ ªº ʰʲ Straße İstanbul ﬁancé Ĳ",
    "word  two   three    four \t tab\t\ttabs   ",
    "end \n\n  \n\r\n\r\n x\r\n \r\n\n\ny \n",
    "\n\n\n  indented\n\t\tmore\n        deep\n",
    "def f(x):\n    if x != 3 and y<=4:\n        return {'a': [1, 2.5e-10], \"b\": None}  # ok\n\n\n",
    "fn main() {\r\n\tlet v: Vec<&'static str> = vec![];\r\n\t\t// nothing\r\n}\r\n",
    "https://user:pass@example.com:8080/a/b%20c/d.html?q=1&r=%C3%A9#frag me@mail.example.org C:\\Windows //// ///\n/\n",
    "#include <stdio.h> $x=${y}+`ls`; a&&b||!c ^~ <=> {{x}} {% y %} !important .class _under -flag --long",
    "你好，世界！今天天气很好。中文English混排123个。「引用」《书》〇 𠀀𠀁",
    "こんにちは、世界！カタカナ ﾊﾝｶｸ ゔ がぎぐ 々〆ヶ 漢字kana混じり",
    "안녕하세요 세계! 한국어 ㄱㄴㄷ ㅏㅑㅓ \u1112\u1161\u11ab",
    "สวัสดีชาวโลก ภาษาไทยไม่มีวรรค ๑๒๓ กำ น้ำ",
    "नमस्ते दुनिया क्षत्रिय ज्ञान हिन्दी தமிழ் မင်္ဂလာပါ ជំរាបសួរ",
    "שָׁלוֹם עוֹלָם, مرحبا بالعالم، كيف ۱۲۳ لا إله ﷺ",
    "Γειά σου Κόσμε ΣΊΣΥΦΟΣ Привет, МИР! Ёлка ԱԲ გამარჯობა ᏣᎳᎩ ꭰꮿ 𐐀𐐨 Ა ՠ ֈ Ꞑ",
    "👩‍👩‍👧‍👦 👋🏽 🤷🏿‍♀️ 🏳️‍🌈 🇨🇭🇫🇷 1️⃣ ❤️‍🔥☺️a🫠b 🧑🏻‍🚀!",
    "a\u0301e\u0301 o\u0308\u0304x \u0301x Z͑ͫ̓A̴̵̜̰L̲G̡ 1\u0301 \u20dd !\u0301! \u0903a",
    "a\u00a0b \u00a0c \u3000d\u2003\u2003e\u200bf \u2028g\u2029 \u0085h\u000bi\u000cj",
    "…“quoted”—‘text’ ‐‑‒–—―‖‗''\"\" ¿¡ §¶ €£¥ ©®™ ×÷± °C ‰ №5 ﹏﹐ ！（）",
    "<|im_ start|> [INST ] </ s> <0x0A> ▁ Ġ Ċ ##ing @@ � \ue000 \U0010ffff \x00\x01\x7f",
    "3 33 333 3333 1,234,567.89 10:30 2026-11-27 +41 79 123 45 67 v1.2.3-rc4 100% $5.00 1st 2nd",
    "!!! ??? ... ,,, ;;; === --- ___ *** ### \n!!!\n\n???\r\n...\n\n\n   \n===",
    " leading", "  two leading", "\ttab", " \n x", "x ", "x  ", "x\n", "x \n ", "\r", "\r\n", "'", "''s", " 's", "x 1", "1 x", "a1b2", "1a", " 1", "  1",
]


def blocks(source):
    """Each pre-tokenizer's patterns, with the name of its constant."""
    literal = r'"(?:[^"\\]|\\.)*"'
    text = lambda quoted: json.loads(quoted.replace(r"\'", "'"))
    block = re.compile(r"((?:\s*(?:case LLAMA_VOCAB_PRE_TYPE_\w+|default):)+)((?:\s*//[^\n]*\n)*)\s*regex_exprs = \{\n(.*?)\n\s*\};", re.DOTALL)
    for labels, before, body in block.findall(source):
        lines = [line.strip() for line in (before + body).splitlines()]
        original = [text(re.search(literal, line)[0]) for line in lines if re.match(r"//\s*\"", line)]
        patterns = [text(found) for line in lines if not line.startswith("//") for found in re.findall(literal, line.split(" //")[0])]
        for label in re.findall(r"PRE_TYPE_(\w+)", labels) or ["DEFAULT"]:
            yield label, original if len(original) == len(patterns) == 1 else patterns


def names(source):
    """Each name, with its constant and what the source sets beside it."""
    start = source.index('tokenizer_pre == "default"')
    for chunk in re.split(r"\} else if \(", source[start : source.index("unknown pre-tokenizer type")]):
        constant = re.search(r"LLAMA_VOCAB_PRE_TYPE_(\w+)", chunk)
        if constant:
            yield re.findall(r'tokenizer_pre == "([^"]+)"', chunk), constant[1], "ignore_merges = true" in chunk, "add_bos = true" in chunk


def main(source, target):
    patterns = dict(blocks(source)) | {"KIMI_K2": [KIMI]}
    cuts = {}
    for listed, constant, ignores, adds in names(source):
        if constant not in patterns:
            sys.exit(f"no patterns of {constant} found")
        try:
            cutter = Sequence([Split(Regex(pattern), "isolated") for pattern in patterns[constant]])
            pieces = [" ".join(str(end - start) for _, (start, end) in cutter.pre_tokenize_str(text)) for text in CORPUS]
        except Exception as error:  # noqa: BLE001: the library raises nothing more exact.
            print(f"{constant}: left out, {error}")
            continue
        for name in (name for name in listed if name not in LEFT_OUT | WHOLE):
            cuts[name] = {"ignores_merges": ignores, "adds_bos": adds, "pieces": pieces}
    same = {}
    for name, cut in cuts.items():
        same.setdefault(json.dumps(cut), []).append(name)
    rows = [{"names": listed} | json.loads(cut) for cut, listed in same.items()]
    with open(target, "w", encoding="utf-8") as file:
        json.dump({"corpus": CORPUS, "cuts": rows}, file, ensure_ascii=True, indent=1)
        file.write("\n")
    print(f"{len(cuts)} names, {len(rows)} ways")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        main(file.read(), sys.argv[2])
