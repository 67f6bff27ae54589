"""Talks with a node through OpenAI's own Python package, as any program would.

Usage: openai_chat.py BASE_URL TOKEN
"""

import sys
import threading

import openai

base_url, token = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key=token)

models = [model.id for model in client.models.list()]
assert "SmolLM2-135M-Instruct.Q4_1" in models, models
assert client.models.retrieve(models[0]).id == models[0]

question = [{"role": "user", "content": "What is the capital of France?"}]
whole = client.chat.completions.create(model=models[0], messages=question, temperature=0, max_tokens=20)
assert whole.choices[0].message.content == "The capital of France is Paris.", whole
assert whole.choices[0].finish_reason == "stop", whole
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 0, whole

# Over two machines, streamed, with HiveMind's own wish beside the request.
stream = client.chat.completions.create(
    model=models[0],
    messages=question,
    temperature=0,
    max_tokens=20,
    stream=True,
    stream_options={"include_usage": True},
    extra_body={"hivemind": {"stages": 2}},
)
chunks = list(stream)
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert text == "The capital of France is Paris.", text
assert len(chunks) > 5, "it came in pieces"
assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens, chunks[-1]

parts = [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}]
seeded = [
    client.chat.completions.create(model=models[0], messages=parts, temperature=0.8, seed=7, max_tokens=12)
    for _ in range(2)
]
assert seeded[0].choices[0].message.content == seeded[1].choices[0].message.content, seeded

stopped = client.chat.completions.create(model=models[0], messages=question, temperature=0, stop="France")
assert stopped.choices[0].message.content == "The capital of ", stopped

# The second turn reuses the first turn's cache; a freshly loaded model computes all of it, to the same words.
turns = question + [
    {"role": "assistant", "content": "The capital of France is Paris."},
    {"role": "user", "content": "And of Germany?"},
]


def answer(messages, stages):
    wish = {"hivemind": {"stages": stages}}
    return client.chat.completions.create(
        model=models[0], messages=messages, temperature=0, max_tokens=30, extra_body=wish
    ).choices[0].message.content


# Two programs that want the model on one machine and on two do not push each other's out.
together = {}
threads = [threading.Thread(target=lambda n=n: together.update({n: answer(question, n)})) for n in (1, 2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert set(together.values()) == {"The capital of France is Paris."}, together

fresh = answer(turns, 1)
answer(question, 2)
assert answer(turns, 2) == fresh, fresh


def refused(kind, code, **request):
    try:
        client.chat.completions.create(**{"model": models[0], "messages": question, **request})
    except kind as error:
        assert error.code == code, error
    else:
        raise AssertionError(f"{request} was served")


refused(openai.NotFoundError, "model_not_found", model="nobody/nothing")
refused(openai.BadRequestError, "invalid_value", temperature=-1)
refused(openai.BadRequestError, "no_messages", messages=[])
refused(openai.BadRequestError, "unsupported", n=2)
refused(openai.BadRequestError, "unsupported", logprobs=True)
refused(openai.BadRequestError, "unsupported", functions=[{"name": "f"}])
refused(openai.BadRequestError, "too_few_machines", extra_body={"hivemind": {"stages": 9}})
refused(openai.BadRequestError, "context_length_exceeded", messages=[{"role": "user", "content": "word " * 9000}])

# What other clients send: null where there is no wish, -1 for no limit, and fields that change nothing here.
# An option that the model's chat template does not know changes nothing, too.
odd = {"logit_bias": None, "stop": None, "max_tokens": -1, "service_tier": "auto", "reasoning_effort": "low"}
odd["chat_template_kwargs"] = {"style": "dry"}
answer = client.chat.completions.create(model=models[0], messages=question, temperature=0, extra_body=odd)
assert answer.choices[0].message.content == "The capital of France is Paris.", answer
assert answer.model_extra["hivemind"]["ignored"] == ["service_tier", "reasoning_effort", "chat_template_kwargs.style"], answer

try:
    openai.OpenAI(base_url=base_url, api_key="wrong").models.list()
except openai.AuthenticationError:
    pass
else:
    raise AssertionError("a wrong token was accepted")
print("done")
