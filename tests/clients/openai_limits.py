"""What a node does with answers that take too long or too much memory, through OpenAI's own Python package.

Usage: openai_limits.py BASE_URL TOKEN
"""

import re
import sys
import threading
import time

import openai

base_url, token = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key=token, max_retries=0)
model = client.models.list().data[0].id
question = [{"role": "user", "content": "Write down all the numbers from one to one thousand, one in each line."}]


def ask(max_tokens, **more):
    return client.chat.completions.create(
        model=model, messages=question, temperature=0.7, seed=7, max_tokens=max_tokens, **more
    )


# # An answer that runs out of time returns its tokens so far, and continues from there to the very tokens of one that
# did not.
whole = ask(400)
assert whole.choices[0].finish_reason == "length", whole
try:
    ask(400, extra_body={"hivemind": {"timeout_s": 0.7}})
    raise SystemExit("an answer of 400 tokens was done in 0.7 s")
except openai.InternalServerError as error:
    assert "the answer took too long" in error.body["message"] and error.body["hint"], error.body
    broken = error.body["hivemind"]
said = broken["tokens"]
assert said == whole.hivemind["tokens"][: len(said)], broken
assert broken["seed"] == 7 and whole.choices[0].message.content.startswith(broken["text"]), broken
rest = ask(400 - len(said), extra_body={"hivemind": {"said": said}})
assert rest.hivemind["tokens"] == whole.hivemind["tokens"], rest
assert broken["text"] + rest.choices[0].message.content == whole.choices[0].message.content, rest
for nonsense in ([10**6], [2]):
    try:
        ask(5, extra_body={"hivemind": {"said": nonsense}})
        raise SystemExit(f"{nonsense} was accepted")
    except openai.BadRequestError as error:
        assert "can't be continued" in error.message, error

# One that needs more memory than there is, is refused with the figures.
try:
    ask(8000)
    raise SystemExit("an answer of 8000 tokens was taken")
except openai.BadRequestError as error:
    assert error.code == "context_length_exceeded", error.body
    room = int(re.search(r"memory for ([\d,]+)", error.message)[1].replace(",", ""))

# Two that have room only one after the other wait their turn, and both are answered.
times = {}


def stream(name):
    for chunk in ask(room * 3 // 5, stop=" 17", stream=True):
        if chunk.choices and chunk.choices[0].delta.content:
            times.setdefault(name, []).append(time.monotonic())


waiting = [threading.Thread(target=stream, args=(name,)) for name in range(3)]
for thread in waiting:
    thread.start()
for thread in waiting:
    thread.join()
spans = sorted((came[0], came[-1]) for came in times.values())
assert len(spans) == 3 and all(a[1] <= b[0] for a, b in zip(spans, spans[1:])), times
print("done")
