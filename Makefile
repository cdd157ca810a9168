# Everything happens in .venv/ here; tools/setup brings what is missing.
PROMPT = What can you do?

.PHONY: demo test check wheels clean

# The prompt reaches the program as it was typed: make would expand its dollars. (Not ?= above:
# zsh and others have a PROMPT in the environment that means something else.)
demo: export override PROMPT := $(value PROMPT)
demo:
	@tools/setup demo
	@.venv/bin/edged demo --prompt "$$PROMPT" --next-command "make demo PROMPT="

test:
	@tools/setup dev
	.venv/bin/pytest $(PYTEST_ARGS)

check:
	@tools/setup dev
	./check

wheels:
	@tools/wheels

clean:
	rm -rf .venv
