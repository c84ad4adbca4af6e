# Targets of the cloud side.
.PHONY: venv-openai
venv-openai: ; $(Q)bash tests/api/venv.sh
