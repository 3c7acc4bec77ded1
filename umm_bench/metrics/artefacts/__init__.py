"""What an image has of the quality of the pictures that a method was shown: sharpness and the grid of a JPEG."""
