"""What readers of published formats are made of: rows, images, words, and the checks that all they yield passes through."""
