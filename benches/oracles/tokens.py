"""Token ids of nasty texts and of conversations, by Hugging Face's tokenizers and by HiveMind.

    tokens.py --expect             has the tokenizers library encode everything (in the environment of requirements.txt)
    tokens.py --llama-cpp          notes where llama.cpp has other ids for the GGUF files (with `llama-cpp-python` installed; optional)
    tokens.py --ours EXECUTABLE    compares the executable with that; `--only TEXT` takes the tokenizers whose names contain it

The executable reads lines `{"tokenizer": PATH, "text": …}` (special tokens are neither added nor in the text) and
`{"tokenizer": PATH, "template": SOURCE, "bos_token": …, "eos_token": …, "messages": […]}`, where PATH is a `tokenizer.json` or a
`.gguf`, and writes for each a line `{"ids": […]}` or `{"error": …}`. Lines of one tokenizer follow each other.
"""

import argparse
import collections
import json
import sys

import texts
from shared import FOLDER, TEMPLATES, TOKENIZERS, ask, read_lines, write_lines

EXPECTED = FOLDER / "tokens.jsonl"
LLAMA_CPP = FOLDER / "tokens-llama.cpp.jsonl"
SHOWN = 5


def index():
    return json.loads((TOKENIZERS / "index.json").read_text(encoding="utf-8"))


def template(name):
    with open(TEMPLATES / f"{name}.jinja", encoding="utf-8", newline="") as file:
        return file.read()


def expect():
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    rows = []
    for name, about in index().items():
        if name != about["expects"]:
            continue
        path = str(TOKENIZERS / about["path"])
        tokenizer = Tokenizer.from_file(path)
        # A text with a whole special token in it is another question: see `typed`.
        special = {token.content: id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        ids = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        for text in texts.nasty():
            if not any(token in text for token in special):
                rows.append({"tokenizer": name, "text": text, "ids": ids(text)})

        named = {key: about[key] for key in ("bos_token", "eos_token") if about[key] is not None}
        source = template(about["template"])
        chat = PreTrainedTokenizerFast(tokenizer_file=path, **named)
        known = len(tokenizer.get_vocab())
        assert len(chat) == known, f"{name}: its first or last token is not in its vocabulary"

        def render(messages):
            try:
                text = chat.apply_chat_template(messages, chat_template=source, add_generation_prompt=True, tokenize=False)
            except Exception as error:  # noqa: BLE001: a template raises whatever it likes.
                return {"error": f"{type(error).__name__}: {error}"}
            wanted = ids(text)
            got = chat.apply_chat_template(messages, chat_template=source, add_generation_prompt=True, return_dict=False)
            assert wanted == got, f"{name}: transformers and tokenizers disagree"
            return {"prompt": text, "ids": wanted}

        for messages in texts.conversations():
            if not any(token in message["content"] for token in special for message in messages):
                rows.append({"tokenizer": name, "messages": messages} | render(messages))
        for messages, harmless in typed(list(special)):
            answer = render(harmless)
            if "ids" in answer:
                kept = [id for id in answer["ids"] if id in special.values()]
                rows.append({"tokenizer": name, "messages": messages, "special": kept, "specials": sorted(special.values())})
        print(f"{name}: {sum(row['tokenizer'] == name for row in rows)} rows, {len(special)} special tokens", flush=True)
    write_lines(EXPECTED, rows)
    print(f"{len(rows)} rows in {EXPECTED}")


def ask_llama_cpp():
    import llama_cpp

    expected = by_tokenizer(read_lines(EXPECTED))
    rows = []
    for name, about in index().items():
        if not about["path"].endswith(".gguf"):
            continue
        model = llama_cpp.Llama(str(TOKENIZERS / about["path"]), vocab_only=True, verbose=False)
        for row in expected[about["expects"]]:
            if "ids" in row:
                text = row["prompt"] if "prompt" in row else row["text"]
                ids = model.tokenize(text.encode(), add_bos=False, special="prompt" in row) if text else []
                if ids != row["ids"]:
                    rows.append({"tokenizer": name, "about": text, "ids": ids})
        print(f"{name}: {sum(row['tokenizer'] == name for row in rows)} otherwise", flush=True)
    write_lines(LLAMA_CPP, rows)


def by_tokenizer(rows):
    sorted_out = collections.defaultdict(list)
    for row in rows:
        sorted_out[row["tokenizer"]].append(row)
    return sorted_out


def typed(special):
    """Conversations in which somebody typed special tokens, each with the same conversation without them.

    Hugging Face takes such text for the token itself; HiveMind does not, so ids cannot be compared. What has to hold: those
    of the template are all there, and no others.
    """
    for some in (special[:3], special[-3:], special[1:2] * 3):
        say = lambda marks: [
            {"role": "user", "content": f"What is {marks[0]}? And {marks[-1]}\n{marks[0]}?"},
            {"role": "assistant", "content": f"{marks[-1]} is a mark."},
            {"role": "user", "content": f" {marks[0]} Thanks{marks[-1]}"},
        ]
        if some:
            yield say(some), say(["word"] * len(some))


def compare(executable, only, everything):
    about = index()
    expected = by_tokenizer(read_lines(EXPECTED))
    by_design = {(row["tokenizer"], row["about"]): row["ids"] for row in read_lines(LLAMA_CPP)} if LLAMA_CPP.exists() else {}
    asked = [(name, row) for name in about if only in name for row in expected[about[name]["expects"]]]
    answers = ask(executable, [request(about[name], row) for name, row in asked])
    counts, details = collections.defaultdict(collections.Counter), collections.defaultdict(list)
    for (name, row), answer in zip(asked, answers):
        count = counts[name]
        row = with_leading(row, about[name])
        good, why = judge(row, answer)
        other = by_design.get((name, row.get("prompt", row.get("text"))))
        if not good and other is not None and with_leading(row | {"ids": other}, about[name])["ids"] == answer.get("ids"):
            good = True
            count["as llama.cpp"] += 1
        kind = "texts" if "text" in row else "typed" if "special" in row else "conversations"
        count[kind] += 1
        count[kind, good] += 1
        count["refused"] += "error" in answer and "error" not in row
        if not good:
            details[name].append(why)
    failed = refused = 0
    for name, count in counts.items():
        if about[name]["path"].endswith(".gguf") and count["refused"] == sum("error" not in row for row in expected[about[name]["expects"]]):
            refused += 1
            print(f"{name}: refused as a whole: {details[name][0]}")
            continue
        failed += len(details[name])
        said = [f"{count[kind, True]}/{count[kind]} {kind}" for kind in ("texts", "conversations", "typed")]
        if count["as llama.cpp"]:
            said.append(f"{count['as llama.cpp']} of them as llama.cpp, not as Hugging Face")
        print(f"{name}: {', '.join(said)}" + (f"  ({about[name]['differs']})" if "differs" in about[name] else ""))
        for why in details[name] if everything else details[name][:SHOWN]:
            print(f"        {why}")
        if len(details[name]) > SHOWN and not everything:
            print(f"        … and {len(details[name]) - SHOWN} more (--all)")
    print(f"\n{len(asked)} of {len(counts)} tokenizers: {failed} differences; {refused} GGUF files refused as a whole")
    return 1 if failed else 0


def request(about, row):
    asked = {"tokenizer": str(TOKENIZERS / about["path"])}
    if "text" in row:
        return asked | {"text": row["text"]}
    return asked | {"template": template(about["template"]), "bos_token": about["bos_token"], "eos_token": about["eos_token"], "messages": row["messages"]}


def with_leading(row, about):
    """A GGUF file says whether prompts begin with its first token, which llama.cpp then adds where the template does not."""
    first = about.get("leading")
    if first is not None and "messages" in row:
        for key in ("ids", "special"):
            if key in row and row[key][:1] != [first]:
                row = row | {key: [first, *row[key]]}
    return row


def judge(row, answer):
    """Whether an answer is right, and what differs."""
    what = ascii(row["text"] if "text" in row else [message["content"] for message in row["messages"]])
    what = what if len(what) <= 100 else what[:100] + "…"
    ours = answer.get("ids")
    if ours is None:
        return "error" in row, f"{what}: ours refuses: {answer.get('error')}"
    if "error" in row:
        return False, f"{what}: theirs refuses: {row['error']}"
    if "special" in row:
        ours = [id for id in ours if id in set(row["specials"])]
        return ours == row["special"], f"{what}: special tokens theirs {row['special']} ours {ours}"
    theirs = row["ids"]
    if theirs == ours:
        return True, ""
    at = next((at for at, (a, b) in enumerate(zip(theirs, ours)) if a != b), min(len(theirs), len(ours)))
    return False, f"{what}: at {at} of {len(theirs)} theirs {theirs[max(0, at - 2) : at + 6]} ours {ours[max(0, at - 2) : at + 6]}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--expect", action="store_true")
    arguments.add_argument("--llama-cpp", action="store_true")
    arguments.add_argument("--ours", metavar="EXECUTABLE")
    arguments.add_argument("--only", default="", metavar="TEXT")
    arguments.add_argument("--all", action="store_true", help="every difference, not the first of each tokenizer")
    arguments = arguments.parse_args()
    if not (arguments.expect or arguments.llama_cpp or arguments.ours):
        sys.exit("say --expect, --llama-cpp, or --ours EXECUTABLE")
    if arguments.expect:
        expect()
    if arguments.llama_cpp:
        ask_llama_cpp()
    if arguments.ours:
        sys.exit(compare(arguments.ours, arguments.only, arguments.all))


if __name__ == "__main__":
    main()
