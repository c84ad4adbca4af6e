# Targets of the cloud side.
.PHONY: venv-openai
venv-openai: ; $(Q)bash tests/api/venv.sh
.PHONY: bench-cloud
bench-cloud: all $(B)/perf/bench_verify ## clients a forayd carries, plain and speculative (MODEL=..., ACCEPT=...)
	$(Q)bash tests/perf/bench_cloud.sh $(or $(MODEL),qwen2.5-coder-1.5b-instruct) $(ACCEPT)

.PHONY: bench-train
bench-train: ## speed and memory of a LoRA step against PyTorch (about 3 GB of wheels at first use)
	$(Q)$(MAKE) -j$(JOBS) all
	$(Q)bash tests/perf/bench_train.sh
