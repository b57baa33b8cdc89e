"""The size of the survey in the paper, from which toys of other sizes are scaled."""

N_OBJECTS, N_PIXELS = 8000, 1200
