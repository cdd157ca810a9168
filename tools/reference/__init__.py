"""What is generated from the code, so that it cannot drift: reference, man page, completions."""
