"""Reads `make -n V=1` output and prints compile_commands.json (stdin -> stdout)."""
import json
import os
import re
import shlex
import sys

entries = []
for line in sys.stdin.read().replace("\\\n", " ").splitlines():
    m = re.search(r"\s-c -o \S+ (\S+\.c)\s*$", line)
    if m:
        # cppcheck reads "command" and understands backslashes, but not the shell's single quotes.
        command = " ".join(a.replace('"', '\\"') for a in shlex.split(line))
        entries.append({"directory": os.getcwd(), "file": m.group(1), "command": command})
json.dump(entries, sys.stdout, indent=0)
