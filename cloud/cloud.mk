# Targets of the cloud side.
.PHONY: venv-openai
venv-openai: ; $(Q)bash tests/api/venv.sh
.PHONY: bench-cloud
bench-cloud: all $(B)/perf/bench_verify ## clients a forayd carries, plain and speculative (MODEL=..., ACCEPT=...)
	$(Q)bash tests/perf/bench_cloud.sh $(or $(MODEL),qwen2.5-coder-1.5b-instruct) $(ACCEPT)
