"""The sections of a report, a module a family: each takes runs and returns what it can say of them."""
