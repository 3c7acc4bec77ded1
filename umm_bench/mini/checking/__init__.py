"""The ground truth of a picture of the sprites' world: which drawing is where, in which look, and what a prompt got."""
