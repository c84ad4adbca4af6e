#!/usr/bin/env python3
"""make_tokens.py: writes tests/golden/tokens-<tokenizer>.json, the ids that llama.cpp gives for hard strings.

Needs llama-cpp-python (0.3.36 made the committed files) and the models in the cache:
  python3 -m venv v && v/bin/pip install llama-cpp-python==0.3.36 && v/bin/python tests/golden/make_tokens.py

Each case: the text as hex, `plain` (control tokens are text), `special` (control tokens are parsed), without BOS.
Also the ids that end a reply, whether BOS is added, and a SHA-256 over the pieces of all tokens.
"""
import ctypes, hashlib, json, os, random, struct, sys
import llama_cpp

TEXTS = [
  "", " ", "  ", "\n", "\n\n", "\t", "\r\n", " \n", "\n ", "a", " a", "a ", "  a", "a  ", "Hello world", "Hello, world!",
  "Hello\nworld", "Hello\r\nworld\r\n", "a\r\n\r\nb", "a \r\n b", "a\n\n\n\nb", "a\t\tb", "\t\t\tx", "x \t y", " \t \n \t ",
  "    four", "a" + " " * 7 + "b", "a" + " " * 100 + "b", " " * 64, "\n" * 33, "\t" * 17, "a" + " " * 3 + "\n" + " " * 5 + "b",
  "I'm you're he's we'll they've I'd don't", "I'M YOU'RE HE'S WE'LL THEY'VE I'D DON'T", "'s't're've'm'll'd", "'S'T'Re'vE", "it\u2019s", "' s", "''s",
  "1", "12", "123", "1234", "12345678901234567890", "3.14159", "1,234,567.89", "0x1F", "1e-9", "v2.0.1", "\u0663\u0664\u0665", "\u2167 \u00bd \u00b2 \u2460", "a1b2c3",
  "1 2  3   4", "2024-01-31T12:34:56Z", "\u0967\u0968\u0969", "x\u00b2+y\u00b2", "\U0001d7d8\U0001d7d9",
  "na\u00efve caf\u00e9", "nai\u0308ve cafe\u0301", "e\u0301\u0301\u0301\u0301", "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031e\u0320\u034dA\u036b\u0357\u0334\u0362\u0335\u031c\u0330\u0354L",
  "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
  "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5", "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0", "\u1794\u17b6\u1793\u17cb\u1790\u17b6",
  "mixed \u4e2d\u6587 and English \u0438 \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0639\u0631\u0628\u064a", "\u4e2dA\u6587B1\u5b57", "\u5317\u4eac2008\u5e74",
  "\U0001f600", "\U0001f600\U0001f601 \U0001f602", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd", "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", "\u2764\ufe0f", "a\U0001f600b \U0001f600c", "1\ufe0f\u20e3",
  "\u00a0", "a\u00a0b", "\u2003\u2003x", "a\u3000b", "\u2028", "\u2029x", "a\u0085b", "\u180e", "x\u180e y", "\u200b\u200b", "\ufeffBOM", "\u00ad", "\u202e reversed", "\u1680a", "\u205f\u202fb",
  "\u0000", "a\u0000b", "\x01\x02\x1c\x1d\x1e\x1f", "\x7f\x80".encode("latin1").decode("latin1"), "\x0b\x0c", "a\x0bb", "\u0378\u0379", "\ue000\uf8ff", "\ufffd", "\uffff", "\U0010ffff", "\U000e0001", "\u1f600",
  "\U00011f12's \U00011f50\U00011f51's \U0001e030's \U0002ebf0\U00031350's \U0001e4f0 12",
  "def f(x):\n    return x + 1\n\n\nclass A(object):\n\tpass\n", "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 1 << 3); }", "<html><body class=\"x\">&amp;</body></html>", "SELECT * FROM t WHERE a >= 10 AND b != 'x';",
  "```python\nprint('hi')\n```", "a+=b; c--; d->e; f::g; !h && ~i || j", "https://example.com/a?b=c&d=e#f", "user@example.com", "C:\\Windows\\System32", "/usr/local/bin", "foo_bar fooBar FOO_BAR foo-bar", "{{ x }} {% if y %}", "$\\alpha^2 + \\beta_{ij}$",
  "if (a) {\r\n\treturn;\r\n}\r\n", "-----", "=====>", "....", "!!!???", "\u2026\u2014\u201cquoted\u201d", "a.b.c", "end.\n\nStart", "end. \n Start", "~!@#$%^&*()_+", "...\n...", "a,\nb", "//\n/*\n*/",
  "The quick brown fox jumps over the lazy dog. " * 4, "supercalifragilisticexpialidocious", "a" * 300, "ab" * 150, "aaaa bbbb " * 20, "\u00e9" * 50, "\u4e00" * 40, "z" * 1000, "!" * 130, "0" * 50, "\U0001f600" * 20,
  "<|im_start|>", "<|im_end|>", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|endoftext|>", "a<|endoftext|>b", " <|im_end|> ", "<|im_start|><|im_start|>", "<|im_start", "im_start|>", "<|im_start|", "<<|im_end|>>",
  "<start_of_turn>user\nhi<end_of_turn>\n", "<bos>", "<eos>a<pad>", "<unk>", "<mask>", "<unused7>", "</s><s>", "<0x41>", "<0x0A>", "<0x-1>", "<h1>x</h1>", "<table><tr><td>1</td></tr></table>", "<tool_call>\n{}\n</tool_call>", "<tool_call", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>",
  "<repo_name>x<file_sep>y", "[PAD151665]", "[multimodal]", "\u2581", "\u2581\u2581\u2581a", "a\u2581b", "\u0120", "\u0120hello \u010a", "\u00c4\u00a0", "\u2581<bos>\u2581",
  "\n\n\n\n\n", "\n \n \n", "a\n\n\n", "   \n\n   x", "\t\n\t\n", " \u00a0 \u00a0 ", "x\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\ny", "a         b  c   d    e     f",
]
BYTES = [
  b"\xff", b"\xfe\xff", b"\x80", b"a\x80b", b"\xc3", b"\xc3(", b"a\xc3", b"\xe2\x82", b"\xe2(\xa1", b"\xe2\x82(", b"\xf0\x9f\x98", b"\xf0\x9f\x98 x", b"\xf0(\x8c\xbc", b"\xf0\x90(\xbc", b"\xf8\xa1\xa1\xa1\xa1", b"\xfc\xa1\xa1\xa1\xa1\xa1",
  b"\xc0\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xed\xa0\x80\xed\xb0\x80", b"caf\xe9 latin1", b"ok \xe4\xb8\xad bad \xe4\xb8 ok", b"\x80\x80\x80 \xff\xff", b"1\xff2\xff3", b"\xff\n\xff\r\n", b"\xa0\xa0", b"\xc2\xa0\xc2", bytes(range(128, 256)), bytes(range(32)),
]

def random_texts():
  """Mixtures that nobody thinks of: pieces of the list above, glued in random order, seed fixed."""
  r = random.Random(20240131)
  pool = [t for t in TEXTS if 0 < len(t) <= 24] + [" ", "\n", "'", "s", "1", "\u0301", "\u200d"]
  return ["".join(r.choice(pool) for _ in range(r.randint(2, 9))) for _ in range(60)]

def main():
  out_dir = os.path.dirname(os.path.abspath(__file__))
  cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "foray", "models")
  texts = [t.encode() for t in TEXTS + random_texts()] + BYTES
  for name, tok in (("smollm2-135m-instruct", "smollm"), ("qwen2.5-coder-0.5b-instruct", "qwen2"), ("gemma3-270m", "gemma")):
    m = llama_cpp.Llama(os.path.join(cache, name + ".gguf"), vocab_only=True, verbose=False)
    vocab = llama_cpp.llama_model_get_vocab(m._model.model)
    n = llama_cpp.llama_vocab_n_tokens(vocab)
    sha, buf = hashlib.sha256(), ctypes.create_string_buffer(8192)
    for i in range(n):
      k = llama_cpp.llama_token_to_piece(vocab, i, buf, 8192, 0, True)
      sha.update(struct.pack("<I", k) + buf.raw[:k])
    def ids(t, special):
      if not t:
        return []
      cap = len(t) + 16
      arr = (llama_cpp.llama_token * cap)()
      k = llama_cpp.llama_tokenize(vocab, t, len(t), arr, cap, False, special)
      assert k >= 0
      return list(arr[:k])
    doc = {"model": name, "made_by": "llama-cpp-python " + llama_cpp.__version__, "n_vocab": n,
           "add_bos": bool(llama_cpp.llama_vocab_get_add_bos(vocab)), "pieces_sha256": sha.hexdigest(),
           "eog": [i for i in range(n) if llama_cpp.llama_vocab_is_eog(vocab, i)]}
    cases = [[t.hex(), ids(t, False), ids(t, True)] for t in texts]
    path = os.path.join(out_dir, "tokens-%s.json" % tok)
    with open(path, "w") as f:
      f.write(json.dumps(doc)[:-1] + ', "cases": [\n')
      f.write(",\n".join(json.dumps(c if c[1] != c[2] else c[:2], separators=(",", ":")) for c in cases))
      f.write("\n]}\n")
    print(path, len(cases), doc["eog"], os.path.getsize(path))

main()
