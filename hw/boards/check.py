"""Checks the Vitis packaging of a board against the sources, without the vendor's tools.

    python3 check.py [BOARD ...] [--top DIR]

kernel.xml: arguments at the offsets of hw/abi, ports that foray_kernel.sv has, widths of the configuration. link.cfg: names that
kernel.xml defines. foray_kernel.sv: connects every port of foray_top, by its name. package_xo.tcl: files that exist."""

import argparse
import os
import re
import sys
import xml.etree.ElementTree as ET

ARGS = {"heap": ("ARG_HEAP_LO", 8), "heap_units": ("ARG_HEAP_UNITS", 4), "run": ("ARG_RUN", 4)}
problems = []


def say(text):
    problems.append(text)


def read(top, path):
    with open(os.path.join(top, path), encoding="utf-8") as f:
        return f.read()


def module_ports(text, name, defines):
    """Names of the ports of a module with ANSI header, `ifdef FORAY_KERNEL_PORTS_4 resolved."""
    keep, out = [True], []
    for line in text.split(f"module {name}", 1)[1].splitlines():
        word = line.strip().split()
        if word[:1] == ["`ifdef"]:
            keep.append(keep[-1] and word[1] in defines)
        elif word[:1] == ["`endif"]:
            keep.pop()
        elif keep[-1]:
            out.append(re.sub(r"//.*", "", line))
    head = "\n".join(out).split(");", 1)[0]
    return re.findall(r"^\s*(?:input|output)\s+[^;\n]*?(\w+)\s*,?\s*$", head, re.M)


def check_board(top, board):
    where = f"hw/boards/{board}"
    settings = dict(re.findall(r"^(\w+)=(\S*)", read(top, f"{where}/board.sh"), re.M))
    cfg_path = f"hw/rtl/cfg/{settings['CONFIG']}/foray_cfg.svh"
    cfg = dict(re.findall(r"`define (\w+) (\S+)", read(top, cfg_path)))
    ports, width = int(cfg["FORAY_PORTS"]), int(cfg["FORAY_PORT_W"])
    kernel = ET.parse(os.path.join(top, where, "kernel.xml")).getroot().find("kernel")
    masters = {p.get("name"): int(p.get("dataWidth")) for p in kernel.iter("port") if p.get("mode") == "master"}
    slaves = [p.get("name") for p in kernel.iter("port") if p.get("mode") == "slave"]
    if masters != {f"m{i:02d}_axi": width for i in range(ports)}:
        say(f"{where}/kernel.xml: masters {masters}, {cfg_path} has {ports} of {width} bits")
    abi = dict(re.findall(r"FORAY_REG_(\w+)\s*=\s*(0x[0-9a-fA-F]+|\d+)", read(top, "hw/gen/foray_abi.h")))
    abi.update(re.findall(r"#define FORAY_REG_(\w+)\s+(0x[0-9a-fA-F]+|\d+)", read(top, "hw/gen/foray_abi.h")))
    seen = set()
    for arg in kernel.iter("arg"):
        name = arg.get("name")
        seen.add(name)
        if name not in ARGS:
            say(f"{where}/kernel.xml: argument {name} is not in hw/abi")
            continue
        reg, size = ARGS[name]
        if int(arg.get("offset"), 16) != int(abi[reg], 0) or int(arg.get("size"), 16) != size:
            say(f"{where}/kernel.xml: argument {name} at {arg.get('offset')} of {arg.get('size')}, hw/abi has {abi[reg]}, {size} bytes")
        if arg.get("port") not in list(masters) + slaves:
            say(f"{where}/kernel.xml: argument {name} on port {arg.get('port')}, which does not exist")
    for name in set(ARGS) - seen:
        say(f"{where}/kernel.xml: argument {name} is missing")

    wrapper = read(top, "hw/boards/vitis/foray_kernel.sv")
    have = module_ports(wrapper, "foray_kernel", settings.get("DEFINES", "").split())
    for m in list(masters) + slaves:
        if not any(p.startswith(m + "_") for p in have):
            say(f"{where}: foray_kernel.sv has no port {m}")
    extra = {p.rsplit("_", 1)[0] for p in have if re.match(r"m\d\d_axi_", p)} - set(masters)
    if extra:
        say(f"{where}: foray_kernel.sv has {sorted(extra)} beyond kernel.xml")

    cu = None
    for line in read(top, f"{where}/link.cfg").splitlines():
        m = re.match(r"nk=(\w+):(\d+):(\w+)$", line)
        if m:
            cu = m.group(3)
            if m.group(1) != kernel.get("name"):
                say(f"{where}/link.cfg: kernel {m.group(1)}, kernel.xml defines {kernel.get('name')}")
        m = re.match(r"(sp|slr)=([\w]+)(?:\.(\w+))?:(\S+)$", line)
        if m and (m.group(2) != cu or (m.group(1) == "sp" and m.group(3) not in masters)):
            say(f"{where}/link.cfg: {line}: no such compute unit or port")
        if line and not line.startswith("[") and not re.match(r"(nk|sp|slr)=", line):
            say(f"{where}/link.cfg: {line}: not understood")
    linked = set(re.findall(r"^sp=\w+\.(\w+):", read(top, f"{where}/link.cfg"), re.M))
    if linked != set(masters):
        say(f"{where}/link.cfg: connects {sorted(linked)}, the kernel has {sorted(masters)}")


def check_common(top):
    wrapper = read(top, "hw/boards/vitis/foray_kernel.sv")
    body = wrapper.split("foray_top u_top (", 1)[1].split(");", 1)[0] + ")"
    connected = set(re.findall(r"\.(\w+)\s*\(", body))
    path = "hw/rtl/foray_top.sv"
    if os.path.exists(os.path.join(top, path)):
        text = read(top, path).split("module foray_top", 1)[1]
        head = text[text.index(") (") + 3 :].split(");", 1)[0]
        wants = set(re.findall(r"(\w+_n?[io])\s*,?\s*$", re.sub(r"//.*", "", head), re.M))
        if connected != wants:
            say(f"foray_kernel.sv: connects {sorted(connected - wants)} that foray_top lacks, leaves out {sorted(wants - connected)}")
    else:
        say(f"{path} is missing")
    tcl = read(top, "hw/boards/vitis/package_xo.tcl")
    for name in re.findall(r"\w+\.sv\b", re.search(r"set gen \[list (.*?)\]", tcl).group(1)):
        if not os.path.exists(os.path.join(top, "hw/gen", name)):
            say(f"package_xo.tcl: hw/gen/{name} does not exist")
    for name in re.findall(r"file join \$top ([\w/]+\.\w+)\]", tcl):
        if not os.path.exists(os.path.join(top, name)):
            say(f"package_xo.tcl: {name} does not exist")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("boards", nargs="*", default=["kv260", "alveo"])
    p.add_argument("--top", default=os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")))
    a = p.parse_args()
    check_common(a.top)
    for b in a.boards:
        check_board(a.top, b)
    for text in problems:
        print(f"boards: {text}")
    if not problems:
        print(f"boards: {' '.join(a.boards)} agree with hw/abi, hw/rtl and their configurations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
