#!/usr/bin/env python3
"""Dry run of the Vitis scripts: records what they would tell vitis_hls and v++, and checks that every file, function,
argument, port, bundle, macro and register offset that they name exists. Usage: dry.py [ROOT
[KERNEL...]]"""
import os
import re
import subprocess
import sys
import tempfile

root = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..", ".."))
vitis = os.path.join(root, "hls", "vitis")
problems, checks, memory = [], 0, {}


def need(condition, text):
    global checks
    checks += 1
    if not condition:
        problems.append(text)
    return condition


def rows(path):
    with open(path) as f:
        lines = [re.sub(r"#.*", "", line).split() for line in f]
    return [line for line in lines if line]


def run(argv, **more):
    p = subprocess.run(argv, capture_output=True, text=True, **more)
    return p.returncode, p.stdout, p.stderr


def known_macros():
    text = ""
    for folder, _, names in os.walk(os.path.join(root, "hls")):
        for name in names:
            if name.endswith((".c", ".h")):
                with open(os.path.join(folder, name)) as f:
                    text += f.read()
    used = set(re.findall(r"#(?:ifdef|ifndef)\s+(\w+)", text)) | set(re.findall(r"defined\((\w+)\)", text))
    return used


def signature(text, function):
    """Argument names of the function's definition in preprocessed text, and its body."""
    m = re.search(r"^void\s+%s\s*\(([^)]*)\)\s*\{" % re.escape(function), text, re.M)
    if not m:
        return None, ""
    names = [re.search(r"(\w+)\s*(\[[^\]]*\])?\s*$", a).group(1) for a in m.group(1).split(",")]
    end = text.find("\n}", m.end())
    return names, text[m.end():end]


def options(pragma):
    """{'mode': 'm_axi', 'port': 'heap', ...} of an INTERFACE pragma."""
    words = re.sub(r"\s*=\s*", "=", pragma).split()
    found = {"mode": words[0]}
    for w in words[1:]:
        if "=" in w:
            key, value = w.split("=", 1)
            found[key] = value
    return found


def interface(function, sources, flags, what):
    text = ""
    for s in sources:
        code, out, err = run(["gcc", "-E", "-P", "-D__VITIS_HLS__", *flags, s])
        need(code == 0, f"{what}: {s} cannot be preprocessed: {err.strip()[:200]}")
        text += out + "\n"
    names, body = signature(text, function)
    if not need(names is not None, f"{what}: no source defines {function}"):
        return {}
    ports, bundles = {}, {}
    for p in re.findall(r"#pragma HLS INTERFACE ([^\n]*)", body):
        o = options(p)
        port = o.get("port", "?")
        need(port in names + ["return"], f"{what}: pragma for port '{port}', but {function} has {', '.join(names)}")
        ports.setdefault(port, {}).update({k: v for k, v in o.items() if k != "mode" or v == "m_axi" or "mode" not in ports.get(port, {})})
        if o["mode"] == "m_axi":
            bundle = o.get("bundle", "")
            need(bundle and bundles.get(bundle, port) == port, f"{what}: bundle '{bundle}' of '{port}' is another port's")
            bundles[bundle] = port
            need(o.get("offset") == "slave", f"{what}: m_axi port '{port}' without offset=slave")
        else:
            need(o["mode"] == "s_axilite" and o.get("bundle") == "control", f"{what}: port '{port}': {p}")
    for name in names + ["return"]:
        need(name in ports, f"{what}: argument '{name}' of {function} has no interface")
    # The other tool's pragmas stand before the function.
    for s in sources:
        code, out, _ = run(["gcc", "-E", "-P", "-D__BAMBU__", *flags, s])
        m = re.search(r"((?:#pragma HLS interface [^\n]*\n\s*)*)void\s+%s\s*\(([^)]*)\)\s*\{" % re.escape(function), out)
        if not m:
            continue
        given = [options("x " + p)["port"] for p in re.findall(r"#pragma HLS interface ([^\n]*)", m.group(1))]
        pointers = [n for n, a in zip(names, m.group(2).split(",")) if "*" in a or "[" in a]
        need(set(given) <= set(names), f"{what}: Bambu pragma for a port that is no argument: {given}")
        need(set(pointers) <= set(given) | {"status"}, f"{what}: pointer without a Bambu pragma: {pointers}, {given}")
    return ports


def check_kernel(name, function, board, record, macros):
    what = f"{board}/{name}"
    code, out, err = record
    if not need(code == 0, f"{what}: hls.tcl ends with {code}: {err.strip()[:300]}"):
        return {}
    lines = [line.split("\t") for line in out.splitlines()]
    by = lambda command: [line[1:] for line in lines if line[0] == command]
    need(by("set_top") == [[function]], f"{what}: set_top {by('set_top')}, kernels.txt says {function}")
    part = by("set_part")
    need(len(part) == 1 and part[0][0].startswith("xc"), f"{what}: part {part}")
    sources, bench, flags = [], [], []
    for f in by("add_files"):
        files = [a for i, a in enumerate(f) if not a.startswith("-") and (i == 0 or f[i - 1] != "-cflags")]
        cflags = f[f.index("-cflags") + 1].split() if "-cflags" in f else []
        for path in files:
            need(os.path.exists(path), f"{what}: file {path} does not exist")
        if "-tb" in f:
            bench += [p for p in files if p.endswith(".c")]
        else:
            sources += files
            flags = cflags
        for flag in cflags:
            if flag.startswith("-I"):
                need(os.path.isdir(flag[2:]), f"{what}: include folder {flag[2:]} does not exist")
            if flag.startswith("-D"):
                need(flag[2:].split("=")[0] in macros, f"{what}: nothing reads macro {flag[2:]}")
        if "-tb" in f and cflags:
            flags_tb = cflags
    for stage in ("csim_design", "cosim_design"):
        for f in by(stage):
            need(os.path.exists(f[f.index("-argv") + 1]), f"{what}: {stage} is given {f[-1]}, which does not exist")
    if problems:
        return {}
    # What the tool would compile and link must compile and link.
    with tempfile.TemporaryDirectory() as tmp:
        code, _, err = run(["gcc", *flags_tb, "-Wall", "-Wextra", "-Werror", "-O0", "-o", tmp + "/tb", *sources, *bench])
        need(code == 0, f"{what}: the files of kernels.txt do not make a program: {err.strip()[:400]}")
    if name == "top":
        check_memory(board, [*flags_tb, *sources, *bench])
    return interface(function, sources, flags, what)


def check_memory(board, flags_and_sources):
    """The arrays of foray_top, as the native compiler lays them out, against the block memories of the board. A tool
    adds a second copy where it overlaps load and compute, and rounds up to blocks, so some room must be left."""
    limit = [int(r[1]) for r in rows(os.path.join(vitis, "boards", board + ".board")) if r[0] == "memory_kb"]
    if not need(len(limit) == 1, f"{board}.board: one row memory_kb"):
        return 0
    with tempfile.TemporaryDirectory() as tmp:
        argv = ["gcc", "-O1", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-o", tmp + "/tb", *flags_and_sources]
        code, _, err = run(argv)
        need(code == 0, f"{board}: {err.strip()[:300]}")
        _, out, _ = run(["nm", "-S", tmp + "/tb"])
    total = 0
    for line in out.splitlines():
        f = line.split()
        if len(f) == 4 and f[2] in "bBdD" and f[3] not in ("heap", "scratch", "want_heap", "want_scratch", "a", "desc"):
            total += int(f[1], 16)
    need(total < limit[0] * 1024 * 3 // 4, f"{board}: foray_top has {total >> 10} KB of arrays, the board {limit[0]} KB of memory blocks")
    memory[board] = total >> 10
    return total


def registers():
    with open(os.path.join(root, "hw", "abi", "regs.def")) as f:
        return {m[0]: int(m[1], 16) for m in re.findall(r"FORAY_REG\((\w+), (0x[0-9A-Fa-f]+)", f.read())}


def check_map(ports):
    """The kernel's arguments lie where the register map of hw/abi has them."""
    regs = registers()
    want = {"heap": regs["ARG_HEAP_LO"], "heap_units": regs["ARG_HEAP_UNITS"], "run": regs["ARG_RUN"],
            "status": regs["ERROR"]}
    for port, at in want.items():
        got = ports.get(port, {}).get("offset")
        need(got is not None and got != "slave" and int(got, 16) == at,
             f"top: argument '{port}' at {got}, hw/abi/regs.def has it at {at:#x}")
    need(regs["ERROR_DESC"] == regs["ERROR"] + 4 and regs["ARG_HEAP_HI"] == regs["ARG_HEAP_LO"] + 4,
         "regs.def: a 64-bit argument's words are not neighbours")


def check_connectivity(board, function, ports):
    path = os.path.join(vitis, "boards", board + ".cfg")
    if not need(os.path.exists(path), f"{board}: no {path}"):
        return
    instances = {}
    memories = 0
    for line in [r[0] for r in rows(path)]:
        key, _, value = line.partition("=")
        if key == "nk":
            kernel, count, names = (value.split(":") + ["", ""])[:3]
            need(kernel == function, f"{board}.cfg: kernel '{kernel}', but the xo holds {function}")
            need(count.isdigit() and len(names.split(".")) == int(count), f"{board}.cfg: {line}")
            instances.update({n: kernel for n in names.split(".")})
        elif key == "sp":
            place, _, memory = value.partition(":")
            instance, _, arg = place.partition(".")
            memories += 1
            need(instance in instances, f"{board}.cfg: no instance '{instance}'")
            need(ports.get(arg, {}).get("mode") == "m_axi", f"{board}.cfg: '{arg}' is no memory port of {function}")
            need(re.fullmatch(r"(DDR|HBM|PLRAM)\[\d+(:\d+)?\]|HPC?\d|LPD", memory), f"{board}.cfg: memory '{memory}'")
        elif key == "slr":
            need(value.split(":")[0] in instances, f"{board}.cfg: no instance '{value.split(':')[0]}'")
        else:
            need(line.startswith("[") or key == "param", f"{board}.cfg: '{line}' is not known to this check")
    masters = [p for p, o in ports.items() if o.get("mode") == "m_axi"]
    need(memories == len(masters) * len(instances), f"{board}.cfg: {memories} memories for {masters}")


def check_build(board, function):
    """build.sh itself, with recorders in the place of the tools."""
    with tempfile.TemporaryDirectory() as tmp:
        for tool, text in (("vitis_hls", f'exec tclsh "{vitis}/record.tcl" "$@"'),
                           ("v++", 'printf "%s\\n" "$@" >"$RECORD"')):
            path = os.path.join(tmp, tool)
            with open(path, "w") as f:
                f.write(f"#!/bin/sh\n{text}\n")
            os.chmod(path, 0o755)
        env = dict(os.environ, PATH=tmp + ":" + os.environ["PATH"], FORAY_OUT=tmp + "/out", RECORD=tmp + "/v++.args")
        code, _, err = run(["bash", os.path.join(vitis, "build.sh"), board], env=env)
        if not need(code == 0, f"build.sh {board} ends with {code}: {err.strip()[:300]}"):
            return
        with open(tmp + "/v++.args") as f:
            args = f.read().split("\n")
        config = args[args.index("--config") + 1] if "--config" in args else ""
        need(os.path.exists(config), f"build.sh {board}: v++ is given --config {config}")
        objects = [a for a in args if a.endswith(".xo")]
        need(objects == [f"{tmp}/out/{function}.xo"] and os.path.exists(objects[0]),
             f"build.sh {board}: v++ links {objects}, which the export did not make")
        platform = args[args.index("--platform") + 1] if "--platform" in args else ""
        need(platform.startswith("xilinx_"), f"build.sh {board}: platform '{platform}'")
    code, _, err = run(["bash", os.path.join(vitis, "build.sh"), "no-such-board"])
    need(code == 2 and board in err, "build.sh does not say which boards there are")


def main():
    kernels = rows(os.path.join(vitis, "kernels.txt"))
    boards = sorted(n[:-6] for n in os.listdir(os.path.join(vitis, "boards")) if n.endswith(".board"))
    macros = known_macros()
    need(len(kernels) >= 13 and len(boards) >= 2, "kernels.txt or boards/ is too short")
    for board in boards:
        for name, function, *_ in kernels:
            if sys.argv[2:] and name not in sys.argv[2:]:
                continue
            if board != boards[0] and name != "top":
                continue  # boards differ in numbers only
            with tempfile.TemporaryDirectory() as tmp:
                env = dict(os.environ, FORAY_KERNEL=name, FORAY_BOARD=board, FORAY_OUT=tmp, FORAY_VECTORS=os.environ.get("FORAY_VECTORS", ""))
                record = run(["tclsh", os.path.join(vitis, "record.tcl"), "-f", os.path.join(vitis, "hls.tcl")], env=env)
                ports = check_kernel(name, function, board, record, macros)
            if problems:
                return
            if name == "top":
                check_map(ports)
                check_connectivity(board, function, ports)
                check_build(board, function)


main()
for p in problems:
    print("hls-dry:", p)
if problems:
    sys.exit(1)
for board, kb in memory.items():
    print(f"hls-dry: {board}: foray_top has {kb} KB of arrays")
print(f"hls-dry: {checks} checks; every file, port, bundle, argument and macro exists (run with recorders, not with Vitis)")
