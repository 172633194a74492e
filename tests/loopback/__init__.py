"""The parts of the loopback Discord; tests import `tests.loopback_discord`, which puts them together."""
