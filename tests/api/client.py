"""The openai Python client against a Foray endpoint. client.py BASE_URL MODEL WANT [edge]: WANT is the text that
`foray generate --plain` makes of PROMPT; `edge`: the endpoint is `foray serve` (no log-probabilities)."""
import sys
import threading
import time
import urllib.request

import openai

base, model, want = sys.argv[1:4]
edge = "edge" in sys.argv[4:]
PROMPT = "Why is the sky blue?"
N = 24
failed = passed = 0


def check(name, ok, more=""):
    global failed, passed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAILED", name, more)


client = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
messages = [{"role": "user", "content": PROMPT}]
greedy = dict(model=model, messages=messages, max_tokens=N, temperature=0)

check("models", [m.id for m in client.models.list().data] == [model])
check("one model", client.models.retrieve(model).id == model)

r = client.chat.completions.create(**greedy)
check("same text as foray generate --plain", r.choices[0].message.content.strip() == want.strip(), repr(r.choices[0].message.content))
check("finish", r.choices[0].finish_reason == "length")
check("usage", r.usage.completion_tokens == N and r.usage.total_tokens == N + r.usage.prompt_tokens, r.usage)

text, last, usage, ids = "", None, None, set()
for chunk in client.chat.completions.create(**greedy, stream=True, stream_options={"include_usage": True}):
    ids.add(chunk.id)
    if chunk.choices:
        text += chunk.choices[0].delta.content or ""
        last = chunk.choices[0].finish_reason or last
    if chunk.usage:
        usage = chunk.usage
check("stream", text == r.choices[0].message.content and last == "length" and len(ids) == 1, (text, last, ids))
check("stream's usage", usage and usage.completion_tokens == N, usage)

word = text.split()[5]
s = client.chat.completions.create(**greedy, stop=[word])
check("stop", s.choices[0].finish_reason == "stop" and s.choices[0].message.content == text[: text.index(word)], s)

hot = dict(greedy, temperature=0.9, top_p=0.95)
a = client.chat.completions.create(**hot, seed=7, n=2)
b = client.chat.completions.create(**hot, seed=8)
c = client.chat.completions.create(**hot, seed=7)
check("n and seed", a.choices[0].message.content == c.choices[0].message.content
      and a.choices[1].message.content == b.choices[0].message.content
      and a.choices[0].message.content != a.choices[1].message.content, a)

if edge:
    try:
        client.chat.completions.create(**greedy, logprobs=True)
        check("log-probabilities are refused at the edge", False)
    except openai.BadRequestError as e:
        check("log-probabilities are refused at the edge", "log-prob" in str(e))
else:
    p = client.chat.completions.create(**greedy, logprobs=True, top_logprobs=3)
    lp = p.choices[0].logprobs.content
    check("log-probabilities", len(lp) == N and all(len(t.top_logprobs) == 3 for t in lp)
          and all(t.token == t.top_logprobs[0].token and abs(t.logprob - t.top_logprobs[0].logprob) < 1e-9 for t in lp)
          and "".join(t.token for t in lp) == p.choices[0].message.content)
    biased = client.chat.completions.create(**dict(greedy, max_tokens=1), logit_bias={}, logprobs=True)
    check("bias is taken", biased.choices[0].logprobs.content[0].token == lp[0].token)
    both = client.completions.create(model=model, prompt=["One, two,", "Red, green,"], max_tokens=6, temperature=0, logprobs=1)
    one = client.completions.create(model=model, prompt="Red, green,", max_tokens=6, temperature=0)
    check("a list of prompts", len(both.choices) == 2 and both.choices[1].text == one.choices[0].text)
    check("completions' log-probabilities", len(both.choices[0].logprobs.token_logprobs) == 6)

for name, bad in [("temperature", dict(temperature=-1)), ("max_tokens", dict(max_tokens=0)), ("n", dict(n=1000))]:
    try:
        client.chat.completions.create(**dict(greedy, **bad))
        check("bad " + name, False)
    except openai.BadRequestError as e:
        check("bad " + name, name in e.body["message"] and e.body["type"] == "invalid_request_error", e.body)
try:
    client.models.retrieve("nobody")
    check("unknown model", False)
except openai.NotFoundError:
    check("unknown model", True)


def get(path):
    with urllib.request.urlopen(base + path) as r:
        return r.read().decode()


def metric(name):
    for line in get("/metrics").splitlines():
        if line.startswith(name + "{") or line.startswith(name + " "):
            return float(line.rsplit(" ", 1)[1])
    return None


# A client that leaves: its generation ends, others go on.
def leave():
    stream = client.chat.completions.create(**dict(greedy, max_tokens=2000), stream=True, extra_body={"ignore_eos": True})
    for i, _ in enumerate(stream):
        if i > 3:
            break
    stream.close()


others = []
thread = threading.Thread(target=lambda: others.append(client.chat.completions.create(**greedy).choices[0].message.content))
thread.start()
leave()
thread.join()
check("others go on", others == [text])
while metric("vllm:num_requests_running") != 0:
    time.sleep(0.05)
made = metric("vllm:generation_tokens_total")
client.chat.completions.create(**dict(greedy, max_tokens=1))
check("a left generation is not finished", metric("vllm:generation_tokens_total") - made == 1
      and 'finished_reason="abort"} 1' in get("/metrics"))
if edge:
    check("drafts are verified", (metric("vllm:spec_decode_num_draft_tokens_total") or 0) > 0)

print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
