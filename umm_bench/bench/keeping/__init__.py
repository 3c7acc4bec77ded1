"""What a store keeps beside scores: where they come from; and how it is carried over and read as tables."""
