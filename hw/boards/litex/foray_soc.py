"""SoC around foray_top for ECP5 boards: LiteDRAM, a serial (UART) or Ethernet bridge, no processor.

    python foray_soc.py BOARD [--build] [--out DIR]

Writes DIR/foray-map.json, which the `litex` device reads: where the registers of the accelerator and the memory lie,
and the commands that bring the memory up, since no processor does it. With --build also the bitstream, by yosys and
nextpnr. Memory map, the same on every board: main memory 0x40000000, accelerator 0x90000000, CSRs 0xf0000000."""

import argparse
import importlib
import json
import os
import sys

from litex.soc.integration.builder import Builder
from litex.soc.integration.soc import SoCRegion
from litex.soc.interconnect import axi
from litedram.frontend.axi import LiteDRAMAXI2Native
from litedram.init import get_sdram_phy_init_sequence
from migen import ClockSignal, Instance, ResetSignal, Signal

TOP = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
FORAY_BASE, FORAY_BYTES = 0x90000000, 0x1000

# module of litex_boards.targets, arguments of its BaseSoC, bridge, clock (Hz), configuration of the RTL
BOARDS = {
    "ulx3s": ("radiona_ulx3s", {"device": "LFE5U-85F", "sdram_module_cls": "MT48LC16M16"}, "uart", 40e6, "tiny"),
    "ecpix5": ("lambdaconcept_ecpix5", {"device": "85F", "with_etherbone": True}, "eth", 50e6, "tiny"),
    "orangecrab": ("gsd_orangecrab", {"device": "85F", "sdram_device": "MT41K256M16"}, "uart", 48e6, "tiny"),
}


def rtl_files(config):
    """Packages first, then modules; the configuration header is found through the include path."""
    gen = [os.path.join(TOP, "hw/gen", f) for f in ("foray_abi_pkg.sv", "foray_tables_pkg.sv", "foray_tables_rom.sv")]
    rtl = os.path.join(TOP, "hw/rtl")
    mods = sorted(f for f in os.listdir(rtl) if f.endswith(".sv"))
    packages = sorted((f for f in mods if f.endswith("_pkg.sv")), key=lambda f: (f != "foray_pkg.sv", f))
    files = gen[:2] + [os.path.join(rtl, f) for f in packages] + gen[2:]
    return files + [os.path.join(rtl, f) for f in mods if f not in packages], os.path.join(rtl, "cfg", config)


def config_value(config, name):
    with open(os.path.join(TOP, "hw/rtl/cfg", config, "foray_cfg.svh"), encoding="utf-8") as f:
        for line in f:
            word = line.split()
            if word[:2] == ["`define", name]:
                return int(word[2])
    raise SystemExit(f"{name} is not in configuration {config}")


def add_foray(soc, config):
    """foray_top: AXI4-Lite registers on the SoC bus, one AXI4 port straight into the memory controller."""
    width = config_value(config, "FORAY_PORT_W")
    if config_value(config, "FORAY_PORTS") != 1:
        raise SystemExit(f"configuration {config} has several memory ports; this SoC connects one")
    files, include = rtl_files(config)
    soc.platform.add_verilog_include_path(include)
    for f in files:
        soc.platform.add_source(f)

    lite = axi.AXILiteInterface(data_width=32, address_width=32)
    port = soc.sdram.crossbar.get_port(mode="both", data_width=width)
    mem = axi.AXIInterface(data_width=width, address_width=32, id_width=1)
    soc.submodules.foray_axi = LiteDRAMAXI2Native(mem, port, base_address=soc.mem_map["main_ram"])
    araddr = Signal(64, name="foray_araddr")
    awaddr = Signal(64, name="foray_awaddr")
    irq = Signal(name="foray_irq")
    size = (width // 8).bit_length() - 1
    soc.comb += [
        mem.ar.addr.eq(araddr),
        mem.ar.size.eq(size),
        mem.ar.burst.eq(1),
        mem.aw.addr.eq(awaddr),
        mem.aw.size.eq(size),
        mem.aw.burst.eq(1),
    ]
    soc.specials += Instance(
        "foray_top",
        i_clk_i=ClockSignal("sys"),
        i_rst_ni=~ResetSignal("sys"),
        i_s_awvalid_i=lite.aw.valid,
        o_s_awready_o=lite.aw.ready,
        i_s_awaddr_i=lite.aw.addr[:12],
        i_s_wvalid_i=lite.w.valid,
        o_s_wready_o=lite.w.ready,
        i_s_wdata_i=lite.w.data,
        i_s_wstrb_i=lite.w.strb,
        o_s_bvalid_o=lite.b.valid,
        i_s_bready_i=lite.b.ready,
        o_s_bresp_o=lite.b.resp,
        i_s_arvalid_i=lite.ar.valid,
        o_s_arready_o=lite.ar.ready,
        i_s_araddr_i=lite.ar.addr[:12],
        o_s_rvalid_o=lite.r.valid,
        i_s_rready_i=lite.r.ready,
        o_s_rdata_o=lite.r.data,
        o_s_rresp_o=lite.r.resp,
        o_irq_o=irq,
        o_m_arvalid_o=mem.ar.valid,
        i_m_arready_i=mem.ar.ready,
        o_m_araddr_o=araddr,
        o_m_arlen_o=mem.ar.len,
        i_m_rvalid_i=mem.r.valid,
        o_m_rready_o=mem.r.ready,
        i_m_rdata_i=mem.r.data,
        i_m_rresp_i=mem.r.resp,
        o_m_awvalid_o=mem.aw.valid,
        i_m_awready_i=mem.aw.ready,
        o_m_awaddr_o=awaddr,
        o_m_awlen_o=mem.aw.len,
        o_m_wvalid_o=mem.w.valid,
        i_m_wready_i=mem.w.ready,
        o_m_wdata_o=mem.w.data,
        o_m_wstrb_o=mem.w.strb,
        o_m_wlast_o=mem.w.last,
        i_m_bvalid_i=mem.b.valid,
        o_m_bready_o=mem.b.ready,
        i_m_bresp_i=mem.b.resp,
    )
    soc.bus.add_slave("foray", lite, SoCRegion(origin=FORAY_BASE, size=FORAY_BYTES, cached=False))


def memory_map(soc, board, config, bridge, out):
    """What the driver needs to know."""
    with open(os.path.join(out, "csr.json"), encoding="utf-8") as f:
        regs = json.load(f)["csr_registers"]
    csr = {n: r["addr"] for n, r in regs.items() if n.startswith(("sdram_", "ddrphy_", "ctrl_"))}
    settings = soc.sdram.controller.settings
    init, _ = get_sdram_phy_init_sequence(settings.phy, settings.timing)
    flags = {"CKE": 0, "RAS": 8, "CAS": 4, "WE": 2, "CS": 1}
    steps = []
    for comment, a, ba, cmd, delay in init:
        names = [w.replace("DFII_COMMAND_", "") for w in cmd.split("|")]
        is_command = "DFII_COMMAND" in cmd
        control = 0
        for word, bit in (("DFII_CONTROL_CKE", 2), ("DFII_CONTROL_ODT", 4), ("DFII_CONTROL_RESET_N", 8)):
            control |= bit if word in cmd else 0
        command = sum(flags.get(n, 0) for n in names) if is_command else 0
        steps.append(
            {"what": comment, "address": a, "bank": ba, "command": command, "control": control, "delay_cycles": delay}
        )
    return {
        "format": 1,
        "board": board,
        "config": config,
        "bridge": bridge,
        "clock_hz": int(soc.sys_clk_freq),
        "foray": FORAY_BASE,
        "ram": soc.bus.regions["main_ram"].origin,
        "ram_bytes": soc.bus.regions["main_ram"].size,
        "memory": settings.phy.memtype,
        "csr": csr,
        "sdram_init": steps,
    }


def make(board, out, build):
    target, args, bridge, clock, config = BOARDS[board]
    base = importlib.import_module(f"litex_boards.targets.{target}").BaseSoC
    soc = base(
        sys_clk_freq=clock,
        cpu_type=None,
        with_uart=False,
        with_timer=False,
        integrated_sram_size=0,
        l2_size=0,
        with_led_chaser=False,
        ident_version=False,
        **args,
    )
    if bridge == "uart":
        extension = getattr(importlib.import_module(f"litex_boards.platforms.{target}"), "feather_serial", None)
        if extension:  # OrangeCrab: a serial adapter on the feather header
            soc.platform.add_extension(extension)
        soc.add_uartbone(baudrate=1000000)
    add_foray(soc, config)
    builder = Builder(soc, output_dir=out, compile_software=False, csr_json=os.path.join(out, "csr.json"))
    builder.build(run=build, build_name="foray")
    with open(os.path.join(out, "foray-map.json"), "w", encoding="utf-8") as f:
        json.dump(memory_map(soc, board, config, bridge, out), f, indent=1)
        f.write("\n")


def main():
    p = argparse.ArgumentParser(description="SoC around foray_top")
    p.add_argument("board", choices=sorted(BOARDS))
    p.add_argument("--build", action="store_true", help="run yosys and nextpnr")
    p.add_argument("--out", default=None)
    a = p.parse_args()
    out = os.path.abspath(a.out or os.path.join(TOP, "build", "boards", a.board))
    os.makedirs(out, exist_ok=True)
    make(a.board, out, a.build)
    print(f"{a.board}: {out}/foray-map.json")


if __name__ == "__main__":
    sys.exit(main())
