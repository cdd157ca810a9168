# Everything happens in .venv/ here; tools/setup brings what is missing.
export PROMPT ?= What can you do?

.PHONY: demo test check clean

demo:
	@tools/setup demo
	@.venv/bin/edged demo --prompt "$$PROMPT" --next-command "make demo PROMPT="

test:
	@tools/setup dev
	.venv/bin/pytest $(PYTEST_ARGS)

check:
	@tools/setup dev
	./check

clean:
	rm -rf .venv
