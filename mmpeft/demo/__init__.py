"""The demo: handwritten digits on photographs, and what ``make demo`` shows of a training on them."""
