# Everything happens in .venv/ here; tools/setup brings what is missing.
PROMPT = What can you do?

.PHONY: demo test check docs package wheels clean

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

# To build/site/. What is generated from the code must be what the code says, and no link broken.
docs:
	@tools/setup publish
	.venv/bin/python -m tools.reference --check
	.venv/bin/mkdocs build --strict

# To dist/: the sdist, and the wheel that is built from it.
package:
	@tools/setup publish
	.venv/bin/python -m tools.reference --check
	.venv/bin/python -m build --no-isolation

wheels:
	@tools/wheels

clean:
	rm -rf .venv build dist
