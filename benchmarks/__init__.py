"""Speed and memory beside what a user would pick instead, and what each choice in training is worth."""
