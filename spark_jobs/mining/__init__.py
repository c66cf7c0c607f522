"""What mining is made of: counting words, moments of the images, and the tables of concepts and of captions."""
