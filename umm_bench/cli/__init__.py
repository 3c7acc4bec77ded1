"""What all commands share: their words, their progress, how they end, and what they will have written."""
