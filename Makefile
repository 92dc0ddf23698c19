# Aliases, for hands that are used to make. Everything is in ./doorward.
.PHONY: demo serve test slow check lock
demo serve test check:
	./doorward $@
slow:
	./doorward test --slow
lock:
	requirements/lock
