"""The view of a training in a terminal: numbers, lines, and the thread that paints them."""
