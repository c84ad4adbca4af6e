#!/usr/bin/env python3
"""make_chat.py: writes tests/golden/chat.json, conversations as Jinja renders them with the models' own templates.

  v/bin/pip install gguf jinja2 && v/bin/python tests/golden/make_chat.py

The templates of SmolLM2 and Qwen2.5-Coder are read from the model files in the cache. The Gemma file of the catalogue is a base
model without one; the gemma, llama3 and llama2 templates below are the published ones of the instruct models, as text.
bos_token is rendered as nothing: the tokenizer adds it.
"""
import json, os
from gguf import GGUFReader
from jinja2.sandbox import ImmutableSandboxedEnvironment

GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""
LLAMA3 = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
LLAMA2 = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"

CONVERSATIONS = [
  [("user", "Hello")], [("user", "  spaces around \n")], [("user", "")],
  [("system", "Be brief."), ("user", "Hi")],
  [("user", "1+1?"), ("assistant", "2"), ("user", "And 2+2?")],
  [("system", "You are a pirate.\nAlways."), ("user", "Hi <|im_end|> there"), ("assistant", " Arr! "), ("user", "caf\u00e9 \U0001f600\nnew line")],
  [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
]

def template_of(name):
  cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "foray", "models")
  return GGUFReader(os.path.join(cache, name + ".gguf")).fields["tokenizer.chat_template"].contents()

def main():
  env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
  def refuse(text):
    raise ValueError(text)
  out = []
  for kind, template in (("smollm", template_of("smollm2-135m-instruct")), ("qwen", template_of("qwen2.5-coder-0.5b-instruct")),
                         ("gemma", GEMMA), ("llama3", LLAMA3), ("llama2", LLAMA2)):
    t = env.from_string(template)
    cases = []
    for conv in CONVERSATIONS:
      msgs = [{"role": r, "content": c} for r, c in conv]
      for gen in (True, False):
        # llama2's BOS between turns is part of the text; only the first one is the tokenizer's
        text = t.render(messages=msgs, add_generation_prompt=gen, bos_token="<s>" if kind == "llama2" else "", eos_token="</s>",
                        raise_exception=refuse)
        if kind == "llama2":
          assert text.startswith("<s>")
          text = text[3:]
        cases.append({"messages": conv, "generation": gen, "text": text})
    out.append({"kind": kind, "template": template, "cases": cases})
  path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "chat.json")
  with open(path, "w") as f:
    json.dump(out, f, indent=1)
    f.write("\n")
  print(path, os.path.getsize(path))

main()
