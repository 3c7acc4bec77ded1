"""What a run will take and what it can show, told before it starts."""
