# Boards of the open flow: LiteX SoC around foray_top, yosys and nextpnr from the package registry (no vendor tools).
LITEX_BOARDS := ulx3s ecpix5 orangecrab
BOARD ?= ulx3s
BOARD_ENV := build/boards/venv
# LiteX looks for tools of these names.
$(BOARD_ENV)/.stamp: hw/boards/litex/requirements.txt
	$(Q)rm -rf $(BOARD_ENV); mkdir -p build/boards; python3 -m venv $(BOARD_ENV)
	$(Q)$(BOARD_ENV)/bin/pip install -q --disable-pip-version-check --require-hashes -r $<
	$(Q)for t in yosys nextpnr-ecp5 ecppack; do ln -sf yowasp-$$t $(BOARD_ENV)/bin/$$t; done; touch $@

.PHONY: board-map bitstream flash
board-map: $(BOARD_ENV)/.stamp ## the SoC of BOARD=ulx3s|ecpix5|orangecrab and its address map, without a bitstream
	$(Q)PATH="$(CURDIR)/$(BOARD_ENV)/bin:$$PATH" $(BOARD_ENV)/bin/python hw/boards/litex/foray_soc.py $(BOARD) >build/boards/$(BOARD).log 2>&1 \
	  || { tail -20 build/boards/$(BOARD).log; exit 1; }
	@echo "build/boards/$(BOARD)/foray-map.json"
bitstream: $(BOARD_ENV)/.stamp ## bitstream of BOARD, with timing and use of the chip (minutes)
	$(Q)bash hw/boards/litex/bitstream.sh $(BOARD) $(BOARD_ENV)
flash: ## load the bitstream of BOARD (openFPGALoader)
	$(Q)test -e build/boards/$(BOARD)/gateware/foray.bit || { echo "flash: no bitstream yet: make bitstream BOARD=$(BOARD)"; exit 1; }
	$(Q)command -v openFPGALoader >/dev/null || { echo "flash: openFPGALoader is not installed: apt-get install openfpgaloader"; exit 1; }
	$(Q)openFPGALoader -b $(if $(filter ecpix5,$(BOARD)),ecpix5,$(if $(filter orangecrab,$(BOARD)),orangeCrab,ulx3s)) build/boards/$(BOARD)/gateware/foray.bit
