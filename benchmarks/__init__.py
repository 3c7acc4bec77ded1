"""Speed and memory beside what a user would pick instead: a table, or with --json one object a line."""
