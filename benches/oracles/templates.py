"""Chat templates of published models, rendered by transformers and by HiveMind.

    templates.py --expect             renders all of them with transformers (in the environment of requirements.txt)
    templates.py --ours EXECUTABLE    compares the executable with that; `--only TEXT` takes the templates whose names contain it

The executable reads lines `{"template": SOURCE, "bos_token": …, "eos_token": …, "messages": […], "tools": […] | null,
"variables": {…}, "now": "2026-11-27T10:20:30"}` and writes for each a line `{"text": …}` or `{"error": …}`.
"""

import argparse
import collections
import datetime
import json
import sys

from shared import HERE, FOLDER, TEMPLATES, ask, first_difference, read_lines, write_lines

NOW = datetime.datetime(2026, 11, 27, 10, 20, 30)
EXPECTED = FOLDER / "templates.jsonl"


def conversations():
    return json.loads((HERE / "conversations.json").read_text(encoding="utf-8"))


def templates():
    """Name, source, and the tokens that it may name."""
    for path in sorted(TEMPLATES.glob("*.jinja")):
        tokens = path.with_suffix(".json")
        with open(path, encoding="utf-8", newline="") as file:
            source = file.read()
        yield path.stem, source, json.loads(tokens.read_text(encoding="utf-8")) if tokens.exists() else {}


def variables_of(conversation, tokens):
    """What a template finds beside the conversation, as Hugging Face gives it: a token that a model lacks is not defined."""
    named = {name: tokens[name] for name in ("bos_token", "eos_token") if tokens.get(name) is not None}
    return named | conversation.get("variables", {})


def expect():
    from transformers.utils import chat_template_utils

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return NOW

    chat_template_utils.datetime = Clock

    def render(source, messages, tools, variables):
        # Templates see objects of their own, so that none can pass anything on to the next.
        messages, tools, variables = json.loads(json.dumps([messages, tools, variables]))
        try:
            rendered, _ = chat_template_utils.render_jinja_template(
                [messages], tools=tools, chat_template=source, add_generation_prompt=True, **variables
            )
        except Exception as error:  # noqa: BLE001: a template raises whatever it likes.
            return {"error": f"{type(error).__name__}: {error}"}
        return {"text": rendered[0]}

    rows = []
    for name, source, tokens in templates():
        for conversation in conversations():
            messages, tools = conversation["messages"], conversation.get("tools")
            variables = variables_of(conversation, tokens)
            row = {"template": name, "conversation": conversation["name"]} | render(source, messages, tools, variables)
            # `apply_chat_template` drops keys that are null since transformers 5; before it, and elsewhere, they are null.
            without = [{key: value for key, value in message.items() if value is not None} for message in messages]
            if without != messages:
                row["without_nulls"] = render(source, without, tools, variables)
            rows.append(row)
    write_lines(EXPECTED, rows)
    texts = sum("text" in row for row in rows)
    print(f"{len(rows)} renders of {len(list(templates()))} templates: {texts} texts, {len(rows) - texts} refused; in {EXPECTED}")


def compare(executable, only, quiet):
    sources = {name: (source, tokens) for name, source, tokens in templates()}
    asked = {conversation["name"]: conversation for conversation in conversations()}
    rows = [row for row in read_lines(EXPECTED) if only in row["template"] and row["template"] in sources]
    requests = []
    for row in rows:
        source, tokens = sources[row["template"]]
        conversation = asked[row["conversation"]]
        requests.append({
            "template": source,
            "bos_token": tokens.get("bos_token"),
            "eos_token": tokens.get("eos_token"),
            "messages": conversation["messages"],
            "tools": conversation.get("tools"),
            "variables": conversation.get("variables", {}),
            "now": NOW.isoformat(),
        })
    kinds, worst = collections.Counter(), collections.Counter()
    for row, answer in zip(rows, ask(executable, requests)):
        kind, detail = judge(row, answer)
        kinds[kind] += 1
        if kind not in ("the same", "both refuse"):
            worst[row["template"]] += 1
            if not quiet:
                print(f"{kind}: {row['template']} × {row['conversation']}\n        {detail}")
    if worst:
        print("\nBy template: " + ", ".join(f"{name} {count}" for name, count in worst.most_common()))
    print(f"\n{len(rows)} renders of {len({row['template'] for row in rows})} templates: "
          + ", ".join(f"{kinds[kind]} {kind}" for kind in ("the same", "both refuse", "other text", "only ours refuses", "only theirs refuses")))
    return 1 if worst else 0


def judge(row, answer):
    theirs, ours = row.get("text"), answer.get("text")
    if theirs is None and ours is None:
        return "both refuse", ""
    if theirs is None:
        return "only theirs refuses", f"{row['error']}\n        ours: {ours[:120]!r}"
    if ours is None:
        return "only ours refuses", str(answer.get("error"))
    if theirs == ours:
        return "the same", ""
    detail = first_difference(theirs, ours)
    if row.get("without_nulls", {}).get("text") == ours:
        detail += "\n        ours is what transformers writes where keys that are null are left out"
    return "other text", detail


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--expect", action="store_true")
    arguments.add_argument("--ours", metavar="EXECUTABLE")
    arguments.add_argument("--only", default="", metavar="TEXT")
    arguments.add_argument("--quiet", action="store_true", help="totals only")
    arguments = arguments.parse_args()
    if not arguments.expect and not arguments.ours:
        sys.exit("say --expect, or --ours EXECUTABLE")
    if arguments.expect:
        expect()
    if arguments.ours:
        sys.exit(compare(arguments.ours, arguments.only, arguments.quiet))


if __name__ == "__main__":
    main()
